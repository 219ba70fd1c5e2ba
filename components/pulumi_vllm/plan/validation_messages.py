"""Turns pydantic's findings into one sentence each: path, what is wrong, the nearest thing that is right."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping

if typing.TYPE_CHECKING:
    from collections.abc import Iterable

    import pydantic
    from pydantic_core import ErrorDetails


def sentences(error: pydantic.ValidationError, model: type[pydantic.BaseModel], root: str) -> tuple[str, ...]:
    """Every finding of `error` as "path: what; remedy", in the order of the file."""
    details = error.errors()
    found = [detail for detail in details if not _follows(detail, details)]
    return tuple(_sentence(detail, model, root) for detail in found)


def named(block: object) -> tuple[str, ...]:
    """What the catalogue says about those parts of a block with mistakes that can be read."""
    from pulumi_vllm.plan import catalogue  # noqa: PLC0415 - both use this module
    from pulumi_vllm.plan import selection as choose  # noqa: PLC0415 - both use this module

    if not isinstance(block, Mapping):
        return ()
    known, readable = catalogue.load(), choose.Named.in_block(block)
    return (*choose.contradictions(readable, known), *choose.too_small(readable, known))


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
    return f"{where}: {_wrong(detail)}"


def _wrong(detail: ErrorDetails) -> str:
    """What is wrong with a value, and what to write."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return f"{_shown(detail)} is not allowed; {_pattern(context)}"
    if kind in _SHAPES:
        return f"{_shown(detail)} is not {_SHAPES[kind]}; write {_SHAPES[kind]}"
    for bound, words in _BOUNDS.items():
        if bound in context and kind.startswith(("greater", "less")):
            return f"{_shown(detail)} is out of range; write {words} {context[bound]}"
    if kind == "too_short":
        return "is empty; write at least one"
    return detail["msg"].removeprefix("Value error, ")


_SHAPES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, for example [a, b]"),
    **dict.fromkeys(("model_type", "mapping_type", "dict_type"), "a block of keys"),
    "string_type": "text",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _shown(detail: ErrorDetails) -> str:
    """The value as it was written; what stands where key names belong may be a key, and is not shown."""
    if "keys" in detail["loc"] or isinstance(detail["input"], dict):
        return "this"
    return repr(detail["input"])[:80]


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
