"""Every key of the stack file with its description, for the generated reference and JSON Schema."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, get_args, get_origin

import pydantic
import pydantic_core

from pulumi_vllm.plan.config import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `schema` is its JSON Schema as pydantic derives it, before any unit is read.

    The path of a key within the blocks of a list has `[]` after the list's name.
    """

    path: str
    type: str
    unit: str
    required: bool
    default: Any
    change: str
    description: str
    schema: dict[str, Any]


def keys(block: type[pydantic.BaseModel] = Deployment, prefix: str = "") -> Iterator[Key]:
    """The keys in the order of the file, each block before its own keys."""
    descriptions, properties = _docstrings(block), block.model_json_schema(by_alias=True)["properties"]
    for name, field in block.model_fields.items():
        key = field.alias or name
        extra = field.json_schema_extra
        assert isinstance(extra, dict)  # noqa: S101 - config_fields.key sets it
        below = field.annotation
        is_block = _is_block(below)
        yield Key(
            path=f"{prefix}{key}",
            type="block" if is_block else _type(properties[key]),
            unit=str(extra.get("unit", "")),
            required=field.is_required(),
            default=None
            if field.is_required() or is_block
            else pydantic_core.to_jsonable_python(field.default),
            change=str(extra["change"]),
            description=descriptions[name],
            schema=properties[key],
        )
        listed = [get_origin(one) and get_args(one)[0] for one in get_args(below)]
        if _is_block(below):
            yield from keys(below, f"{prefix}{key}.")
        for item in filter(_is_block, listed):
            yield from keys(item, f"{prefix}{key}[].")


def _is_block(kind: Any) -> TypeGuard[type[pydantic.BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _type(schema: dict[str, Any]) -> str:
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    names = {"array": "list", "object": "map", "integer": "whole number", "string": "text"}
    return " or ".join(names.get(one["type"], one["type"]) for one in kinds)


def _docstrings(block: type[pydantic.BaseModel]) -> dict[str, str]:
    """Field → the docstring below it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(block))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - the source of a class
    found, name = {}, ""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            found[name] = " ".join(str(statement.value.value).split())
            name = ""
    return found
