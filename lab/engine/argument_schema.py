#!/usr/bin/env python3
"""Write arguments.json of an engine from the parser, the configuration and the registries of its own wheel.

usage: argument_schema.py [--stdout] 0.26.0 ...

uv installs the wheel into a temporary environment of about 5 GB. No GPU is needed. The file keeps of each argument
the name, kind and type, the choices of the parser, the `values` of a registry that the parser does not check, the
bounds, and the keys of JSON. With --stdout the file is printed.
"""

import json
import sys

import wheel


def dump(version: str) -> str:
    """Return the text of arguments.json."""
    with wheel.installed(version) as python:
        found = json.loads(wheel.ask(python, "ask_arguments.py"))
    return text(version, found)


def text(version: str, found: dict[str, object]) -> str:
    """Lay out an answer of ask_arguments.py, one argument a line."""
    arguments = found["arguments"]
    assert isinstance(arguments, dict)  # noqa: S101 - ask_arguments.py writes one
    rows = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}"
        for name, one in sorted(arguments.items())
    )
    head = (
        f'{{\n "version": {json.dumps(version)},\n "abbreviations": {json.dumps(found["abbreviations"])},\n'
    )
    return f'{head} "arguments": {{\n{rows}\n }}\n}}\n'


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
