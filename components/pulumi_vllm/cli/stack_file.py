"""Stack files: found by path or by name, read, and changed in place so that comments and order stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BLOCK = ("config", "pulumi-vllm:server")


class StackFileError(Exception):
    """A sentence about a stack file that can't be read or changed."""


def find(stack: str) -> Path:
    """A file of that path, else the stack of that name."""
    # The engine takes the ending of the project's own file.
    endings = [Path(f"Pulumi.{stack}{ending}") for ending in (".yaml", ".yml")]
    for path in (Path(stack), *("stacks" / name for name in endings), *endings):
        if path.is_file():
            return path
    raise StackFileError(f"{stack}: no such stack; name a file, or a stack of the folder stacks/")


def block_of(path: Path, text: str | None = None) -> dict[str, Any]:
    """The `pulumi-vllm:server` block."""
    try:
        document = yaml.load(path.read_text() if text is None else text, Loader=_LOADER)  # noqa: S506 - a safe loader
        block = document["config"]["pulumi-vllm:server"]
    except OSError as error:
        raise StackFileError(f"{path}: {error.strerror}; name a stack file") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise StackFileError(
            f"{path}{line}: is not YAML: {getattr(error, 'problem', error)}; correct it"
        ) from None
    except (KeyError, TypeError):
        block = None
    if not isinstance(block, dict):
        raise StackFileError(f"{path}: no `config: pulumi-vllm:server:` in it; see stacks/ for examples")
    return block


def put(block: dict[str, Any], dotted: str) -> None:
    """Overwrite one value: `machine.count=1`; the value is YAML."""
    path, equals, value = dotted.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise StackFileError(f"--set {dotted}: is not key=value; write for example --set machine.count=1")
    try:
        parsed = yaml.load(value, Loader=_LOADER)  # noqa: S506 - a safe loader
    except yaml.YAMLError:
        raise StackFileError(f"--set {dotted}: the value is not YAML; quote it") from None
    at = block
    for key in keys[:-1]:
        below = at.setdefault(key, {})
        if not isinstance(below, dict):
            raise StackFileError(f"--set {dotted}: {key} is a value, not a block; name a key that is there")
        at = below
    at[keys[-1]] = parsed


def change(text: str, values: Mapping[str, str | int | float | None]) -> str:
    """The text with these values of the block set, by dotted key; None takes the key's line away.

    Only the characters of the values change; a key that is missing becomes a line after the block's first key.
    """
    for dotted, value in values.items():
        text = _one(text, (*_BLOCK, *dotted.split(".")), value)
    return text


def _one(text: str, keys: tuple[str, ...], value: str | float | None) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, key in enumerate(keys):
        if not isinstance(node, yaml.MappingNode) or (node.flow_style and depth < len(keys) - 1):
            raise StackFileError(f"{'.'.join(keys[1:depth])}: is not a block of lines; write one key a line")
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            if value is None:
                return text
            if depth < len(keys) - 1 or node.flow_style:
                raise StackFileError(f"{'.'.join(keys[1 : depth + 1])}: is missing; write it as a block")
            return _insert(text, node, f"{key}: {value}")
        if depth == len(keys) - 1:
            return _replace(text, pair, value)
        node = pair[1]
    return text


def _insert(text: str, node: yaml.MappingNode, line: str) -> str:
    """After the line of the first key, whose value is a plain one in every block that we write to."""
    first, value = node.value[0]
    end = text.find("\n", value.end_mark.index)
    if end < 0:
        text, end = text + "\n", len(text)
    return f"{text[: end + 1]}{' ' * first.start_mark.column}{line}\n{text[end + 1 :]}"


def _replace(text: str, pair: tuple[Any, Any], value: str | float | None) -> str:
    start, end = pair[1].start_mark.index, pair[1].end_mark.index
    if value is None:
        begin = text.rfind("\n", 0, pair[0].start_mark.index) + 1
        after = text.find("\n", end)
        return text[:begin] + (text[after + 1 :] if after >= 0 else "")
    return f"{text[:start]}{value}{text[end:]}"
