"""The lines that Pulumi.yaml needs, put into a person's file so that comments and order stay."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from pulumi_vllm.component.plugin_entry import names_plugin

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

PLUGIN: Final = "plugins:\n  providers:\n    - name: vllm\n      path: ./provider\n"
REFRESH: Final = (
    "options:\n  refresh: always # a plain preview looks at the host, so drift is an ordinary diff\n"
)


class ProjectFileError(Exception):
    """A sentence about a project or stack file that can't be read."""


def read(path: Path) -> str:
    """A person's file: line ends as they are, and bytes that are no UTF-8 kept for `write`."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def write(path: Path, text: str) -> None:
    """Put back what `read` gave."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def ending(text: str) -> str:
    """How its lines end."""
    return "\r\n" if "\r\n" in text else "\n"


def new(name: str) -> str:
    """The text of a project that has none."""
    runtime = "runtime:\n  name: python\n  options:\n    virtualenv: .venv\n"
    return f"name: {name}\ndescription: A language model on rented GPUs\n{runtime}{REFRESH}{PLUGIN}"


def parse(text: str, where: str, *, empty: bool = False) -> dict[str, Any]:
    """The document, or ProjectFileError; `empty`: it may hold nothing, or comments alone."""
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    except (UnicodeEncodeError, yaml.reader.ReaderError):
        raise ProjectFileError(
            f"{where}: is not UTF-8, or holds a control character; write it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ProjectFileError(
            f"{where}{line}: is not YAML: {getattr(error, 'problem', error)}; correct it"
        ) from None
    if document is None and empty:
        return {}
    if not isinstance(document, dict):
        raise ProjectFileError(f"{where}: is not a block of keys; correct it, or move it away")
    return document


def with_lines(text: str, document: dict[str, Any]) -> tuple[str, list[str]]:
    """The text with what is missing in it, and a sentence for each line that has no plain place there."""
    left: list[str] = []
    for there, path, lines in (
        (names_plugin(document), ("plugins", "providers"), PLUGIN),
        (_options(document).get("refresh") is not None, ("options",), REFRESH),
    ):
        if there:
            continue
        added = _insert(text, path, lines.replace("\n", ending(text)))
        if added is None:
            left.append(
                f"Pulumi.yaml: `{'.'.join(path)}` is written in a form of its own; add there:\n{lines}"
            )
        else:
            text = added
    refresh = _options(document).get("refresh")
    if refresh not in {None, "always"}:
        left.append(
            f"Pulumi.yaml: options.refresh is {refresh}: a plain preview does not look at the host, and drift stays "
            "unseen; write always"
        )
    return text, left


def with_block(text: str, block: str) -> str | None:
    """A stack file with this block at its end, or None where that would not be the same document with the block."""
    if "config" in parse(text, "", empty=True):
        return None
    end = ending(text)
    begun = f"{text.rstrip()}{end}" if text.strip() else ""
    return _merges(text, begun + block.replace("\n", end), block)


def _options(document: dict[str, Any]) -> dict[str, Any]:
    options = document.get("options")
    return options if isinstance(options, dict) else {}


def _insert(text: str, path: tuple[str, ...], lines: str) -> str | None:
    """Put the lines' own block at the end, or what is missing of it before the first entry of the one that is there.

    None where the result would not be the same document with these lines.
    """
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    depth, inside = 0, lines
    while depth < len(path) and isinstance(node, yaml.MappingNode) and not node.flow_style:
        below = next((value for key, value in node.value if key.value == path[depth]), None)
        if below is None:
            break
        node, depth = below, depth + 1
        inside = re.sub(r"^ {2}", "", inside.partition("\n")[2], flags=re.MULTILINE)
    if depth == 0:
        changed = f"{text.rstrip()}{ending(text)}{inside}"
    elif isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value and not node.flow_style:
        at = node.start_mark.index - node.start_mark.column
        indent = " " * node.start_mark.column
        changed = text[:at] + re.sub("^(?=.)", indent, inside, flags=re.MULTILINE) + text[at:]
    else:
        return None
    return _merges(text, changed, lines)


def _merges(text: str, changed: str, lines: str) -> str | None:
    """What was changed, if it says what both said."""
    before, wanted = yaml.load(text, Loader=_LOADER) or {}, yaml.load(lines, Loader=_LOADER)  # noqa: S506 - safe
    try:
        after = yaml.load(changed, Loader=_LOADER)  # noqa: S506 - a safe loader
    except yaml.YAMLError:
        return None
    return changed if after == _merged(before, wanted) else None


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return one | {key: _merged(one[key], value) if key in one else value for key, value in other.items()}
    return [*other, *one] if isinstance(one, list) and isinstance(other, list) else one
