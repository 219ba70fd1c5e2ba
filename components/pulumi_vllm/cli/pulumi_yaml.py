"""Pulumi.yaml and stack files of a user: read, and extended so that every line of theirs stays."""

from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pulumi_vllm.cli import yaml_edit
from pulumi_vllm.component import project_file
from pulumi_vllm.plan import yaml_text
from pulumi_vllm.plan.errors import ConfigError

PLUGIN: Final = "plugins:\n  providers:\n    - name: vllm\n      path: ./provider\n"
REFRESH: Final = (
    "options:\n  refresh: always # a plain preview looks at the host, so drift is an ordinary diff\n"
)


class ProjectFileError(Exception):
    """A project or stack file cannot be read."""


class _NoPlaceError(Exception):
    """The file has a value where a block or a list would be extended."""


def read(path: Path) -> str:
    """Read a user's file. Line ends stay, and bytes that are not UTF-8 are kept for `write`.

    Raises:
        ProjectFileError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ProjectFileError(f"{path}: {error.strerror}; make it readable") from None


def write(path: Path, text: str) -> None:
    """Write a text that `read` returned."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def ending(text: str) -> str:
    """Return the line end that the text uses."""
    return "\r\n" if "\r\n" in text else "\n"


def new(name: str) -> str:
    """Return the text of a new Pulumi.yaml."""
    runtime = "runtime:\n  name: python\n  options:\n    virtualenv: .venv\n"
    return f"name: {name}\ndescription: A language model on rented GPUs\n{runtime}{REFRESH}{PLUGIN}"


def stack_file(document: dict[str, Any], project: Path, stack: str) -> Path:
    """Return where Pulumi looks: in the project's stackConfigDir, with the ending of the project's file.

    Raises:
        ProjectFileError: stackConfigDir is not the name of a folder.
    """
    if not isinstance(where := document.get("stackConfigDir") or "", str):
        raise ProjectFileError(f"{project}: stackConfigDir is {where!r}; write the name of a folder")
    return project.parent / where / f"Pulumi.{stack}{project.suffix}"


def parse(text: str, where: str, *, empty: bool = False) -> dict[str, Any]:
    """Return the document, or raise ProjectFileError. With `empty` it may contain only comments or nothing."""
    try:
        document = yaml_text.load(text, where)
    except ConfigError as error:
        raise ProjectFileError(str(error)) from None
    if document is None and empty:
        return {}
    if not isinstance(document, dict):
        raise ProjectFileError(f"{where}: is not a block of keys; correct it, or move it away")
    return document


def with_lines(text: str, document: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the text with the missing entries, and a message for each entry that the user must add."""
    left: list[str] = []
    for there, path, lines in (
        (project_file.names_plugin(document), ("plugins", "providers"), PLUGIN),
        (_options(document).get("refresh") is not None, ("options",), REFRESH),
    ):
        if there:
            continue
        added = _with_entries(text, lines)
        if added is None:
            left.append(
                f"Pulumi.yaml: `{'.'.join(path)}` cannot be extended without changing other lines; add there:\n{lines}"
            )
        else:
            text = added
    refresh = _options(document).get("refresh")
    if refresh not in {None, "always"}:
        left.append(
            f"Pulumi.yaml: options.refresh is {refresh}: a plain preview does not look at the host and misses drift; "
            "write always"
        )
    return text, left


def with_block(text: str, block: str) -> str | None:
    """Return a stack file with this block at its end, or None where the file has a `config` already."""
    if "config" in parse(text, "", empty=True):
        return None
    end = ending(text)
    begun = f"{text.rstrip()}{end}" if text.strip() else ""
    return _merges(text, begun + block.replace("\n", end), block)


def _options(document: dict[str, Any]) -> dict[str, Any]:
    options = document.get("options")
    return options if isinstance(options, dict) else {}


def _with_entries(text: str, lines: str) -> str | None:
    """Return the text with these entries, or None where that would change more than it adds."""
    try:
        changed = yaml_edit.edit(text, lambda document: _add(document, YAML().load(lines)))
    except (YAMLError, _NoPlaceError):
        return None
    return _merges(text, changed, lines) if yaml_edit.only_adds_lines(text, changed) else None


def _add(document: Any, entries: Any) -> None:
    """Add entries in front of those in the same block or list; a block that is missing goes to the end."""
    for key, value in entries.items():
        if key not in document:
            document[key] = value
        elif isinstance(value, list) and isinstance(document[key], list):
            document[key][:0] = value
        elif isinstance(value, dict) and isinstance(document[key], dict):
            _add_first(document[key], value)
        else:
            raise _NoPlaceError


def _add_first(block: Any, entries: Any) -> None:
    for key, value in reversed(list(entries.items())):
        if key in block:
            _add(block, {key: value})
        else:
            block.insert(0, key, value)


def _merges(text: str, changed: str, lines: str) -> str | None:
    """Return the changed text if it means the original document with these entries added, else None."""
    try:
        before, wanted, after = (yaml_text.load(one, "") for one in (text, lines, changed))
    except ConfigError:
        return None
    return changed if after == _merged(before or {}, wanted) else None


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return one | {key: _merged(one[key], value) if key in one else value for key, value in other.items()}
    return [*other, *one] if isinstance(one, list) and isinstance(other, list) else one
