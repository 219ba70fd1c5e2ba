"""Templates: where they lie and how they are filled. A missing variable is an error."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import jinja2

from pulumi_vllm.plan import PlanError


@functools.cache
def root() -> pathlib.Path:
    """The templates folder: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for folder in (package / "templates", package.parents[1] / "templates"):
        if folder.is_dir():
            return folder
    raise PlanError((f"{package}: no templates folder; install pulumi-vllm again",))


def fill(path: str, **variables: Any) -> str:
    """The text of the host file `path` from its template."""
    try:
        return _environment().get_template(path.lstrip("/") + ".j2").render(**variables)
    except jinja2.UndefinedError as error:
        raise PlanError((f"templates{path}.j2: {error.message}; correct the template",)) from None


def plain() -> dict[str, str]:
    """Files that are the same on every host, by their path there: our programs."""
    folder = root() / "usr/local/lib/pulumi-vllm"
    return {
        f"/usr/local/lib/pulumi-vllm/{file.name}": file.read_text()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix in ("", ".py")
    }


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - unit files and shell, no HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _json
    return environment


def _json(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.replace("\n", "\n  ")
