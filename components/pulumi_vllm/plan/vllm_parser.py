"""The arguments that a vLLM version accepts (data/engines/*/arguments.json), read as its own parser reads them."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.engine_arguments import number, whole_number
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pulumi_vllm.plan.engine_arguments import Flags, FlagValue

_OPPOSITES = {"disable": "enable", "enable": "disable"}
_ENGINES = pathlib.Path(__file__).parent / "data" / "engines"


def versions() -> list[str]:
    """Engine versions whose arguments are known."""
    return sorted(path.parent.name for path in _ENGINES.glob("*/arguments.json"))


@functools.cache
def accepted(version: str) -> Mapping[str, Mapping[str, Any]]:
    """Argument name → what it accepts; empty for an unknown version."""
    known = _entries(version)
    return {name: _with_values(entry, known) for name, entry in known.items()}


def _entries(version: str) -> dict[str, dict[str, Any]]:
    """The arguments as the files have them. A file with `like` has only those that differ from another version."""
    path = _ENGINES / version / "arguments.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    entries = (_entries(found["like"]) if "like" in found else {}) | found["arguments"]
    return {name: entry for name, entry in entries.items() if entry is not None}


def _with_values(entry: Any, known: Mapping[str, Mapping[str, Any]]) -> Any:
    """Write out a list that a file describes by that of another argument."""
    if not isinstance(entry, dict):
        return entry
    if "of" in entry:
        names = (
            set(known[entry["of"]]["values"])
            .difference(entry.get("without", ()))
            .union(entry.get("with", ()))
        )
        return sorted(names)
    return {key: _with_values(value, known) for key, value in entry.items()}


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
        if (positive := _negated(name, known)) is not None:
            flags[positive] = False
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
        if (positive := _negated(name, known)) is not None:
            yield f"--{name} is the opposite of {positive}; write {positive}: false"
        elif name.partition(".")[0] not in known:
            yield f"--{name}: vLLM {version} has no such argument; {_remedy(name, known)}"


def refused(flags: Flags, version: str) -> Iterator[str]:
    """A message for each value that this version's parser refuses."""
    known = accepted(version)
    for name, value in flags.items():
        problem = _problem(known[name], value) if name in known else None
        if problem:
            yield (f"--{name}: {problem}" if isinstance(value, bool) else f"--{name} {value}: {problem}")


def out_of_range(flags: Flags, version: str) -> Iterator[str]:
    """A message for each number that the parser accepts and the configuration refuses."""
    known = accepted(version)
    for name, value in flags.items():
        argument = known.get(name, {})
        numbers = (
            number(whole_number(word) if argument.get("type") == "tokens" else word)
            for word in _words(argument, value)
        )
        beyond = next(filter(None, (_bound(argument, one) for one in numbers if one is not None)), None)
        if name == "max-model-len" and whole_number(value) == 0:  # its least, -1, means auto
            beyond = "1 or more"
        if beyond:
            yield f"--{name} {value} is out of range, and vLLM does not start; write {beyond}"


def deprecated(flags: Flags, version: str) -> Iterator[str]:
    """A message for each argument that a later version will remove."""
    known = accepted(version)
    for name in flags:
        if known.get(name, {}).get("deprecated"):
            yield f"--{name} is deprecated in vLLM {version}; leave it out"


def _negated(name: str, known: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The switch that a word switches off: --no-x, or the opposite of --enable-x in 0.33.0."""
    if name.startswith("no-") and known.get(name[3:], {}).get("switch") == "both":
        return name[3:]
    head, _, rest = name.partition("-")
    positive = f"{_OPPOSITES.get(head, '')}-{rest}"
    return positive if known.get(positive, {}).get("opposite") == name else None


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
    name = name.removeprefix("no-")
    if name in removed_flags():
        return removed_flags()[name]
    found = suggestion(name, [one for one in known if _polarity(one) == _polarity(name)])
    return found if found.startswith("did you mean") else "leave it out"


@functools.cache
def removed_flags() -> Mapping[str, str]:
    """Arguments that earlier versions had → what to do instead. Read only when a flag is unknown."""
    found: dict[str, str] = json.loads((_ENGINES / "removed.json").read_text())
    return found


def _polarity(name: str) -> str:
    """`enable` or `disable`. A suggestion must not be the opposite of what was written."""
    head = name.partition("-")[0]
    return head if head in {"enable", "disable"} else ""


def _problem(argument: Mapping[str, Any], value: FlagValue) -> str | None:
    if "switch" in argument:
        if not isinstance(value, bool):
            return "takes no value; write it alone"
        return None if value or argument["switch"] == "both" else "has no --no- form; leave it out"
    if isinstance(value, bool):
        return None if argument.get("words") in {"?", "*"} else "needs a value; write one"
    return next(filter(None, (_word_problem(argument, word) for word in _words(argument, value))), None)


def _word_problem(argument: Mapping[str, Any], word: str) -> str | None:
    if "choices" in argument:
        return None if word in argument["choices"] else _not_one_of(word, argument["choices"])
    kind = argument["type"]
    if not _has_type(kind, word):
        return f"is not {_TYPES[kind]}; write {_TYPES[kind]}"
    if "values" in argument and not _is_value(word, argument["values"]):
        return _not_one_of(word, argument["values"])
    return _object_problem(argument.get("keys", {}), word) if argument.get("object") else None


def _not_one_of(word: str, known: Sequence[str]) -> str:
    return f"is not one of its values; {suggestion(word, known)}"


def _is_value(word: str, known: Sequence[str]) -> bool:
    """Whether a registry has the name. vLLM looks up the names of backends in upper case."""
    return word in known or (known[0].isupper() and word.upper() in known)


def _object_problem(known: Mapping[str, Mapping[str, Any]], word: str) -> str | None:
    """What is wrong with the object of a JSON argument."""
    try:
        content = json.loads(word)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return "is not a JSON object; write for example {} with its keys"
    return _key_problem(known, content) if known else None


def _key_problem(known: Mapping[str, Mapping[str, Any]], content: Mapping[str, Any]) -> str | None:
    """What is wrong with a key of an object, or of an object in it."""
    for key, value in content.items():
        if key not in known:
            return f"has no key {key}; {suggestion(key, known)}"
        given = str(value).lower() if isinstance(value, bool) else str(value)
        values = known[key].get("values")
        if values and value is not None and given.upper() not in [one.upper() for one in values]:
            return f"{key} {_not_one_of(given, values)}"
        inner = (
            _key_problem(known[key]["keys"], value)
            if isinstance(value, dict) and "keys" in known[key]
            else None
        )
        if inner:
            return f"{key} {inner}"
        beyond = _bound(known[key], value) if isinstance(value, int | float) else None
        if beyond:
            return f"{key} is out of range; write {beyond}"
    return None


def _words(argument: Mapping[str, Any], value: FlagValue) -> list[str]:
    """JSON and text may hold blanks. A list is split into words."""
    if isinstance(value, bool):
        return []
    return str(value).split() if "words" in argument else [str(value)]


def _bound(argument: Mapping[str, Any], found: float) -> str | None:
    """The bound that a number is beyond."""
    if "least" in argument and found < argument["least"]:
        return f"{argument['least']:g} or more"
    if "above" in argument and found <= argument["above"]:
        return f"more than {argument['above']:g}"
    if "most" in argument and found > argument["most"]:
        return f"{argument['most']:g} or less"
    if "below" in argument and found >= argument["below"]:
        return f"less than {argument['below']:g}"
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
