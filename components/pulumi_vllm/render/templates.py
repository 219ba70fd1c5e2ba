"""Jinja templates of the host's files. A missing variable is an error."""

from __future__ import annotations

import functools
import json
from typing import Any

import jinja2

from pulumi_vllm.plan import PlanError
from pulumi_vllm.render import layout, package_files


def fill(path: str, **variables: Any) -> str:
    """The text of the host file `path`, from its template."""
    try:
        return _environment().get_template(path.lstrip("/") + ".j2").render(**variables)
    except jinja2.UndefinedError as error:
        raise PlanError((f"templates{path}.j2: {error.message}; correct the template",)) from None


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(package_files.templates()),
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
