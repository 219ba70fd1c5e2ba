"""The arguments that a vLLM version's own parser takes (data/engines/*/arguments.json), read as it reads them."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import engine_arguments as load
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_ENGINES = pathlib.Path(__file__).parent / "data" / "engines"


def versions() -> list[str]:
    """Engine versions whose arguments are known."""
    return sorted(path.parent.name for path in _ENGINES.glob("*/arguments.json"))


@functools.cache
def arguments(version: str) -> Mapping[str, Mapping[str, Any]]:
    """Argument name → what it takes; empty for a version that was never dumped."""
    path = _ENGINES / version / "arguments.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())["arguments"] if path.exists() else {}
    return found


def read(words: Sequence[str], version: str) -> dict[str, Any]:
    """Words of a command line as name → value: True and False for switches, text for the rest.

    `--a=b`, `--a b`, underscores, `--no-a`, short forms, unique beginnings; a dotted name keeps its first part.
    """
    known, flags, at = arguments(version), dict[str, Any](), 0
    while at < len(words):
        word, at = words[at], at + 1
        if not _is_flag(word):
            flags.setdefault("model", word)
            continue
        name, equals, value = word.partition("=")
        name = _name(name, known)
        if name.startswith("no-") and known.get(name[3:], {}).get("switch") == "both":
            flags[name[3:]] = False
            continue
        one = known.get(name.partition(".")[0])
        if one is not None and "switch" in one:
            flags[name] = value if equals else True
            continue
        values = [value] if equals else []
        several = one is not None and "words" in one
        while not equals and at < len(words) and not _is_flag(words[at]) and (several or not values):
            values.append(words[at])
            at += 1
        flags[name] = " ".join(values) if values else True
    return flags


def _is_flag(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None


def _name(written: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The long name that a word means; a word that means none stays as it is."""
    if not written.startswith("--"):
        long = (name for name, one in known.items() if written in one.get("short", ()))
        return next(long, written.lstrip("-"))
    head, dot, rest = written[2:].partition(".")
    head = head.replace("_", "-")
    if head not in known:
        alias = [name for name, one in known.items() if head in one.get("also", ())]
        begun = [name for name in known if name.startswith(head)]
        head = alias[0] if alias else begun[0] if len(begun) == 1 else head
    return head + dot + rest


def unknown(flags: Mapping[str, Any], version: str) -> Iterator[str]:
    """Arguments that this version does not have."""
    known = arguments(version)
    for name in flags if known else ():
        if name.partition(".")[0] not in known:
            yield f"--{name}: vLLM {version} has no such argument; {_near(name, known)}"


def wrong(flags: Mapping[str, Any], version: str) -> Iterator[str]:
    """Values that this version's parser refuses."""
    known = arguments(version)
    for name, value in flags.items():
        if name in known:
            why = _refusal(known[name], value)
            if why:
                yield f"--{name} {value}: {why}" if not isinstance(value, bool) else f"--{name}: {why}"


def deprecated(flags: Mapping[str, Any], version: str) -> Iterator[str]:
    """Arguments that a later version will not have."""
    known = arguments(version)
    for name in flags:
        if known.get(name, {}).get("deprecated"):
            yield f"--{name} is deprecated in vLLM {version}; leave it out"


def _near(name: str, known: Mapping[str, Any]) -> str:
    found = suggestion(name.removeprefix("no-"), known)
    return found if found.startswith("did you mean") else "leave it out"


def _refusal(one: Mapping[str, Any], value: object) -> str | None:
    if "switch" in one:
        if not isinstance(value, bool):
            return "takes no value; write it alone"
        return None if value or one["switch"] == "both" else "has no --no- form; leave it out"
    if isinstance(value, bool):
        return None if one.get("words") in ("?", "*") else "needs a value; write one"
    # JSON and text may hold blanks; a list is words, and only its words can be checked.
    words = str(value).split() if "words" in one else [str(value)]
    for word in words:
        if "choices" in one and word not in one["choices"]:
            return f"is not one of its values; {suggestion(word, one['choices'])}"
        if "choices" not in one and not _fits(one["type"], word):
            return f"is not {_SHAPES[one['type']]}; write {_SHAPES[one['type']]}"
    return None


_SHAPES = {
    "tokens or auto": "a count such as 32768, 32K or 1.5k, or auto",
    "tokens": "a count such as 32768, 32K or 1.5k",
    "number": "a number",
    "integer": "a whole number",
    "json": "JSON",
}


def _fits(kind: str, word: str) -> bool:
    if kind == "tokens or auto" and word.lower() in ("auto", "-1"):
        return True
    if kind.startswith("tokens"):
        return load.whole(word) is not None
    readers: dict[str, Callable[[str], object]] = {"number": float, "integer": int, "json": json.loads}
    try:
        readers.get(kind, str)(word)
    except ValueError:
        return False
    return True
