"""Turns pydantic's errors into messages for a person: path, what is wrong, what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pydantic
    from pydantic_core import ErrorDetails


def messages(error: pydantic.ValidationError, model: type[pydantic.BaseModel], root: str) -> tuple[str, ...]:
    """Every error as "path: what; remedy", in the order of the keys in `model`."""
    details = error.errors()
    return tuple(_message(detail, model, root) for detail in details if not _is_consequence(detail, details))


def _is_consequence(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because its items are wrong."""
    path = detail["loc"]
    longer = (other["loc"] for other in details if len(other["loc"]) > len(path))
    return detail["type"] == "too_short" and any(other[: len(path)] == path for other in longer)


def _message(detail: ErrorDetails, model: type[pydantic.BaseModel], root: str) -> str:
    keys = [str(part) for part in detail["loc"] if part != "[key]"]  # pydantic's mark of a mapping's key
    path = ".".join((root, *keys))
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{path}: unknown key; {suggestion(keys[-1], _known_keys(model, keys[:-1]))}"
    if kind == "missing":
        return f"{path}: missing; add it"
    return f"{path}: {_problem(detail)}"


def _problem(detail: ErrorDetails) -> str:
    """What is wrong with a value, and what to write."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return f"{_shown(detail)} is not allowed; {_allowed(context)}"
    if kind in _TYPES:
        return f"{_shown(detail)} is not {_TYPES[kind]}; write {_TYPES[kind]}"
    for bound, words in _BOUNDS.items():
        if bound in context and kind.startswith(("greater", "less")):
            return f"{_shown(detail)} is out of range; write {words} {context[bound]}"
    if kind == "too_short":
        return "is empty; write at least one"
    return detail["msg"].removeprefix("Value error, ")


_TYPES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, for example [a, b]"),
    **dict.fromkeys(("model_type", "mapping_type", "dict_type"), "a block of keys"),
    "string_type": "text",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _shown(detail: ErrorDetails) -> str:
    """The value as it was written. Under `keys` it may be an API key, which must not be shown."""
    if "keys" in detail["loc"] or isinstance(detail["input"], dict):
        return "this"
    return repr(detail["input"])[:80]


def _allowed(context: Mapping[str, Any]) -> str:
    pattern = str(context.get("pattern", ""))
    words = pattern.strip("^$()").split("|")
    if all(word.replace("-", "").isalnum() for word in words):
        return f"write {' or '.join(words)}"
    return f"it must match {pattern}"


def _known_keys(model: type[pydantic.BaseModel], parents: list[str]) -> tuple[str, ...]:
    """The keys of the block at a path."""
    for parent in parents:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = fields[parent].annotation
        assert isinstance(annotation, type)  # noqa: S101 - only a block can hold an unknown key
        model = annotation
    return tuple(field.alias or name for name, field in model.model_fields.items())
