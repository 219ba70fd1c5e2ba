"""YAML that people write, read so that a key which is written twice is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(text: str, where: str) -> object:
    """What a text says. `where` is its file, for the messages.

    PyYAML takes the last of two equal keys, and says nothing. Pulumi refuses such a stack file as this does, so that
    none reaches a program.

    Raises:
        ConfigError: it is not YAML, or keys are written twice; with every such key.
    """
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            errors = tuple(f"{where}:{error}" for error in _repeated(node, (), set()))
            if errors:
                raise ConfigError(errors)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (UnicodeEncodeError, yaml.reader.ReaderError):
        raise ConfigError(
            (f"{where}: is not UTF-8, or contains a control character; write it as UTF-8",)
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            (f"{where}{line}: is not YAML: {getattr(error, 'problem', error)}; correct it",)
        ) from None


def in_yaml(value: object) -> str:
    """The beginning of a value, as a person writes it in YAML."""
    words = {None: "nothing", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)[:80]


def _repeated(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """Every key that a block has twice: line, path, and what to do. An alias is looked at once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _repeated(item, (*path, str(number)), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        below, line, written = (*path, key.value), key.start_mark.line + 1, (key.tag, key.value)
        if written in first:
            yield f"{line}: {'.'.join(below)}: is in line {first[written]} already; remove one of the two"
        first.setdefault(written, line)
        yield from _repeated(value, below, seen)
