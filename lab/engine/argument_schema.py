#!/usr/bin/env python3
"""Write arguments.json of an engine from the parser, the configuration and the registries of its own wheel.

usage: argument_schema.py [--stdout] 0.26.0 ...

uv installs the wheel into a temporary environment of about 5 GB. No GPU is needed. The file keeps of each argument
the name, kind and type, the choices of the parser, the `values` of a registry that the parser does not check, the
bounds, and the keys of JSON. A list that hardly differs from that of attention-backend is described by the difference.
Of most versions, only what differs from the version in `LIKE` is written. With --stdout the file is printed.
"""

import json
import sys
from typing import Any

import wheel

WHOLE = "0.32.0-cpu"
"""The version whose file has every argument. The others have what differs from it."""
NAMED = "attention-backend"
"""The argument whose long list of values returns inside several others."""
_MOST_DIFFERENCES = 4


def dump(version: str) -> str:
    """Return the text of arguments.json."""
    with wheel.installed(version) as python:
        found = json.loads(wheel.ask(python, "ask_arguments.py"))
    return text(version, found)


def text(version: str, found: dict[str, object]) -> str:
    """Lay out an answer of ask_arguments.py, one argument a line."""
    arguments = found["arguments"]
    assert isinstance(arguments, dict)  # noqa: S101 - ask_arguments.py writes one
    arguments, like = described(arguments), ""
    if version != WHOLE:
        whole = json.loads((wheel.ENGINES / WHOLE / "arguments.json").read_text())["arguments"]
        arguments = {name: one for name, one in arguments.items() if whole.get(name) != one} | {
            name: None for name in whole if name not in arguments
        }
        like = f' "like": {json.dumps(WHOLE)},\n'
    rows = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}"
        for name, one in sorted(arguments.items())
    )
    head = (
        f'{{\n "version": {json.dumps(version)},\n "abbreviations": {json.dumps(found["abbreviations"])},\n'
    )
    return f'{head}{like} "arguments": {{\n{rows}\n }}\n}}\n'


def described(arguments: dict[str, Any]) -> dict[str, Any]:
    """Describe each list that hardly differs from that of `NAMED` by the difference."""
    named = set(arguments[NAMED].get("values", ()))

    def describe(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: describe(one) for key, one in value.items()}
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            return value
        missing, more = sorted(named - set(value)), sorted(set(value) - named)
        if value != sorted(value) or len(missing) + len(more) > _MOST_DIFFERENCES:
            return value
        different = {"without": missing, "with": more}
        return {"of": NAMED} | {key: names for key, names in different.items() if names}

    return {name: one if name == NAMED else describe(one) for name, one in arguments.items()}


def main() -> None:
    """Write, or print, the file of each version named."""
    for version in (word for word in sys.argv[1:] if word != "--stdout"):
        written = dump(version)
        if "--stdout" in sys.argv:
            sys.stdout.write(written)
            continue
        (wheel.ENGINES / version).mkdir(exist_ok=True)
        (wheel.ENGINES / version / "arguments.json").write_text(written)
        print(f"{version}: {len(written.splitlines()) - 5} arguments, {len(written) // 1024} KiB")


if __name__ == "__main__":
    main()
