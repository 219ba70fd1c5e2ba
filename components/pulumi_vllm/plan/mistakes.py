"""Turns pydantic's findings into one sentence each: path, what is wrong, the nearest thing that is right."""

from __future__ import annotations

import difflib
import typing

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pydantic
    from pydantic_core import ErrorDetails


def sentences(error: pydantic.ValidationError, model: type[pydantic.BaseModel], root: str) -> tuple[str, ...]:
    """Every finding of `error` as "path: what; remedy", in the order of the file."""
    details = error.errors()
    found = [detail for detail in details if not _follows(detail, details)]
    return tuple(_sentence(detail, model, root) for detail in found)


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy that names the nearest known word, or all of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(words)}"


def _follows(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether a list is only too short because its items are wrong."""
    where = detail["loc"]
    inside = (other["loc"] for other in details if len(other["loc"]) > len(where))
    return detail["type"] == "too_short" and any(other[: len(where)] == where for other in inside)


def _sentence(detail: ErrorDetails, model: type[pydantic.BaseModel], root: str) -> str:
    where = ".".join((root, *(str(part) for part in detail["loc"])))
    kind = detail["type"]
    if kind == "extra_forbidden":
        *parents, key = (str(part) for part in detail["loc"])
        return f"{where}: unknown key; {nearest(key, _keys(model, parents))}"
    if kind == "missing":
        return f"{where}: missing; add it"
    if kind == "string_pattern_mismatch":
        return f"{where}: {detail['input']!r} is not allowed; {_pattern(detail.get('ctx', {}))}"
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}{_got(detail)}"


def _got(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error" or isinstance(detail["input"], dict):
        return ""
    return f"; it is {detail['input']!r}"


def _pattern(context: Mapping[str, typing.Any]) -> str:
    pattern = str(context.get("pattern", ""))
    words = pattern.strip("^$()").split("|")
    if all(word.replace("-", "").isalnum() for word in words):
        return f"write {' or '.join(words)}"
    return f"it must match {pattern}"


def _keys(model: type[pydantic.BaseModel], parents: list[str]) -> tuple[str, ...]:
    for parent in parents:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = fields[parent].annotation
        assert isinstance(annotation, type)  # noqa: S101 - only blocks can hold unknown keys
        model = annotation
    return tuple(field.alias or name for name, field in model.model_fields.items())
