"""The arguments that a vLLM version's own parser accepts (data/engines/*/arguments.json), read as it reads them."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.engine_arguments import whole_number
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pulumi_vllm.plan.engine_arguments import Flags, FlagValue

_ENGINES = pathlib.Path(__file__).parent / "data" / "engines"


def versions() -> list[str]:
    """Engine versions whose arguments are known."""
    return sorted(path.parent.name for path in _ENGINES.glob("*/arguments.json"))


@functools.cache
def accepted(version: str) -> Mapping[str, Mapping[str, Any]]:
    """Argument name → what it accepts; empty for an unknown version."""
    path = _ENGINES / version / "arguments.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())["arguments"] if path.exists() else {}
    return found


def parse(words: Sequence[str], version: str) -> dict[str, FlagValue]:
    """Flags of a command line that a person wrote: booleans for switches, text for the rest.

    It accepts `--a=b`, `--a b`, underscores, `--no-a`, short forms and unique prefixes. A dotted name stays dotted.
    """
    known, position = accepted(version), 0
    flags: dict[str, FlagValue] = {}
    while position < len(words):
        word, position = words[position], position + 1
        if not _is_flag(word):
            flags.setdefault("model", word)
            continue
        name, equals, value = word.partition("=")
        name = _long_name(name, known)
        if name.startswith("no-") and known.get(name[3:], {}).get("switch") == "both":
            flags[name[3:]] = False
            continue
        argument = known.get(name.partition(".")[0])
        if argument is not None and "switch" in argument:
            flags[name] = value if equals else True
            continue
        values = [value] if equals else []
        takes_several = argument is not None and "words" in argument
        while (
            not equals
            and position < len(words)
            and not _is_flag(words[position])
            and (takes_several or not values)
        ):
            values.append(words[position])
            position += 1
        flags[name] = " ".join(values) if values else True
    return flags


def unknown(flags: Flags, version: str) -> Iterator[str]:
    """A message for each argument that this version does not have."""
    known = accepted(version)
    for name in flags if known else ():
        if name.partition(".")[0] not in known:
            yield f"--{name}: vLLM {version} has no such argument; {_remedy(name, known)}"


def refused(flags: Flags, version: str) -> Iterator[str]:
    """A message for each value that this version's parser refuses."""
    known = accepted(version)
    for name, value in flags.items():
        problem = _problem(known[name], value) if name in known else None
        if problem:
            yield f"--{name}: {problem}" if isinstance(value, bool) else f"--{name} {value}: {problem}"


def deprecated(flags: Flags, version: str) -> Iterator[str]:
    """A message for each argument that a later version will remove."""
    known = accepted(version)
    for name in flags:
        if known.get(name, {}).get("deprecated"):
            yield f"--{name} is deprecated in vLLM {version}; leave it out"


def _is_flag(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None


def _long_name(written: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The argument that a word names. An unknown word stays as it is."""
    if not written.startswith("--"):
        long = (name for name, argument in known.items() if written in argument.get("short", ()))
        return next(long, written.lstrip("-"))
    head, dot, rest = written[2:].partition(".")
    head = head.replace("_", "-")
    if head not in known:
        alias = [name for name, argument in known.items() if head in argument.get("also", ())]
        prefixed = [name for name in known if name.startswith(head)]
        head = alias[0] if alias else prefixed[0] if len(prefixed) == 1 else head
    return head + dot + rest


def _remedy(name: str, known: Mapping[str, Any]) -> str:
    remedy = suggestion(name.removeprefix("no-"), known)
    return remedy if remedy.startswith("did you mean") else "leave it out"


def _problem(argument: Mapping[str, Any], value: FlagValue) -> str | None:
    if "switch" in argument:
        if not isinstance(value, bool):
            return "takes no value; write it alone"
        return None if value or argument["switch"] == "both" else "has no --no- form; leave it out"
    if isinstance(value, bool):
        return None if argument.get("words") in ("?", "*") else "needs a value; write one"
    # JSON and text may hold blanks. A list is split into words, and only its words can be checked.
    words = str(value).split() if "words" in argument else [str(value)]
    for word in words:
        if "choices" in argument and word not in argument["choices"]:
            return f"is not one of its values; {suggestion(word, argument['choices'])}"
        if "choices" not in argument and not _has_type(argument["type"], word):
            return f"is not {_TYPES[argument['type']]}; write {_TYPES[argument['type']]}"
    return None


_TYPES = {
    "tokens or auto": "a count such as 32768, 32K or 1.5k, or auto",
    "tokens": "a count such as 32768, 32K or 1.5k",
    "number": "a number",
    "integer": "a whole number",
    "json": "JSON",
}


def _has_type(kind: str, word: str) -> bool:
    if kind == "tokens or auto" and word.lower() in ("auto", "-1"):
        return True
    if kind.startswith("tokens"):
        return whole_number(word) is not None
    readers: dict[str, Callable[[str], object]] = {"number": float, "integer": int, "json": json.loads}
    try:
        readers.get(kind, str)(word)
    except ValueError:
        return False
    return True
