"""Jinja templates of the host's files. A missing variable is an error."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import jinja2

from pulumi_vllm.plan import PlanError
from pulumi_vllm.render import layout


@functools.cache
def directory() -> pathlib.Path:
    """The templates directory: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for candidate in (package / "templates", package.parents[1] / "templates"):
        if candidate.is_dir():
            return candidate
    raise PlanError((f"{package}: the templates directory is missing; install pulumi-vllm again",))


def fill(path: str, **variables: Any) -> str:
    """The text of the host file `path`, from its template."""
    try:
        return _environment().get_template(path.lstrip("/") + ".j2").render(**variables)
    except jinja2.UndefinedError as error:
        raise PlanError((f"templates{path}.j2: {error.message}; correct the template",)) from None


def programs() -> dict[str, str]:
    """The host programs and their modules, which are the same on every host, by path on the host."""
    folder = directory() / layout.PROGRAMS.lstrip("/")
    return {
        f"{layout.PROGRAMS}/{file.relative_to(folder)}": file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in ("", ".py")
    }


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - unit files and shell, no HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _json
    environment.globals["layout"] = layout
    return environment


def _json(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.replace("\n", "\n  ")
