"""Turns pydantic's errors into messages for a person: path, what is wrong, what to write."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

import pydantic

from pulumi_vllm.plan.suggestions import suggestion
from pulumi_vllm.plan.yaml_text import in_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    keys, block = _keys(detail, model)
    path = ".".join(filter(None, (root, *keys)))
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{path}: unknown key; {suggestion(keys[-1], _names(block))}"
    if kind == "missing":
        return f"{path}: missing; add it"
    if kind == "union_tag_not_found":
        return f"{path}.kind: missing; add one of {_choices(_tags(block))}"
    if kind == "union_tag_invalid":
        return f"{path}.kind: {context['tag']!r} is not known; write {_choices(_tags(block))}"
    return f"{path}: {_problem(detail)}"


def _keys(detail: ErrorDetails, model: type[pydantic.BaseModel]) -> tuple[list[str], Any]:
    """The keys of an error's path as a person wrote them, and the type of the last block in it.

    Pydantic adds the kind of a block to the path where the block's keys depend on it.
    """
    keys: list[str] = []
    at: Any = model
    *parents, last = [part for part in detail["loc"] if part != "[key]"] or [
        ""
    ]  # pydantic's mark of a mapping's key
    for part in parents:
        tags = _tags(at)
        if part in tags:
            at = tags[str(part)]
            continue
        keys.append(str(part))
        at = _below(at, str(part))
    if detail["type"].startswith("union_tag"):
        at = _below(at, str(last))
    return [*keys, str(last)], at


def _below(at: Any, part: str) -> Any:
    """The type of a key's value."""
    at = _bare(at)
    if isinstance(at, type) and issubclass(at, pydantic.BaseModel):
        found = {field.alias or name: field for name, field in at.model_fields.items()}.get(part)
        return None if found is None else _bare(found.annotation)
    items = [one for one in get_args(at) if one is not Ellipsis]  # of a tuple of any length
    return _bare(items[-1]) if items else None


def _bare(at: Any) -> Any:
    """A type without its constraints, and without None."""
    while get_origin(at) is Annotated:
        at = get_args(at)[0]
    if get_origin(at) in {Union, UnionType}:
        options = [one for one in get_args(at) if one is not type(None)]
        return _bare(options[0]) if len(options) == 1 else at
    return at


def _tags(at: Any) -> dict[str, type[pydantic.BaseModel]]:
    """Kind → block, of a value whose keys depend on its kind."""
    at = _bare(at)
    if get_origin(at) not in {Union, UnionType}:
        return {}
    return {
        str(get_args(one.model_fields["kind"].annotation)[0]): one
        for one in map(_bare, get_args(at))
        if isinstance(one, type) and issubclass(one, pydantic.BaseModel) and "kind" in one.model_fields
    }


def _names(block: Any) -> tuple[str, ...]:
    """The keys of a block."""
    block = _bare(block)
    assert issubclass(block, pydantic.BaseModel)  # noqa: S101 - only a block can hold an unknown key
    return tuple(field.alias or name for name, field in block.model_fields.items())


def _choices(words: Mapping[str, Any] | list[str]) -> str:
    return " or ".join(words)


def _problem(detail: ErrorDetails) -> str:
    """What is wrong with a value, and what to write."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind.startswith("string_"):
        return _text_problem(detail)
    if kind == "literal_error":
        return f"{_shown(detail)} is not allowed; write {str(context['expected']).replace(chr(39), '')}"
    if kind in _TYPES:
        wanted = _TYPES[kind]
        return f"{_shown(detail)} is not {wanted}; write {wanted}{_EXAMPLES.get(wanted, '')}"
    for bound, words in _BOUNDS.items():
        if bound in context and kind.startswith(("greater", "less")):
            return f"{_shown(detail)} is out of range; write {words} {_number(context[bound])}"
    if kind == "too_short":
        return "is empty; write at least one"
    return detail["msg"].removeprefix("Value error, ")


def _text_problem(detail: ErrorDetails) -> str:
    """The same for a value that must be text."""
    shown, kind, context = _shown(detail), detail["type"], detail.get("ctx", {})
    if kind == "string_type":
        quoted = isinstance(detail["input"], int | float) and shown != _HIDDEN
        return f"{shown} is not text; write text" + (f', in quotes: "{shown}"' if quoted else "")
    if kind == "string_pattern_mismatch":
        return f"{shown} is not allowed; {allowed(str(context['pattern']))}"
    if kind == "string_too_short":
        least = context["min_length"]
        too_short = f"{shown} is too short; write at least {least} characters"
        return "is empty; write some text" if least == 1 else too_short
    return detail["msg"]


_TYPES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("model_type", "mapping_type", "dict_type", "model_attributes_type"), "a block of keys"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
}
_EXAMPLES = {"a list": ", for example [a, b]"}
_IN_WORDS: Final = {
    r"^[a-z0-9][a-z0-9-]{0,30}$": "up to 31 lower-case letters, digits and hyphens, without a hyphen at the start",
    r"^[a-z][a-z0-9]{0,7}$": "up to 8 lower-case letters and digits, a letter first",
    r"^https?://[^\s/]+(/[^\s]*)?$": "an address with http:// or https://, such as https://hub.example.com",
    r"^[A-Z0-9][A-Za-z0-9 ]{0,40}$": "up to 41 letters, digits and spaces, with a capital letter or a digit first",
    r"^\d{1,2}\.\d$": "a number with one decimal in quotes, such as '8.6'",
    r"^[0-9a-f]{40}$": "a commit of 40 lower-case hex digits",
    r"^[0-9a-f]{64}$": "a SHA-256 of 64 lower-case hex digits",
    r"^[0-9a-f]{12}$": "12 lower-case hex digits",
    r"^[a-z0-9][a-z0-9.-]{0,62}$": "up to 63 lower-case letters, digits, dots and hyphens, without . or - at the start",
}
"""What a value may be, in words, by the pattern that it must match. A pattern that lists words needs none."""
_HIDDEN = "this"
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _shown(detail: ErrorDetails) -> str:
    """The value as it was written. Under `keys` it may be an API key, which must not be shown."""
    if "keys" in detail["loc"] or isinstance(detail["input"], dict):
        return _HIDDEN
    return in_yaml(detail["input"])


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def allowed(pattern: str) -> str:
    """What to write where a text does not match a pattern."""
    words = pattern.strip("^$()").split("|")
    if all(word.replace("-", "").isalnum() for word in words):
        return f"write {' or '.join(words)}"
    return f"write {_IN_WORDS[pattern]}"
