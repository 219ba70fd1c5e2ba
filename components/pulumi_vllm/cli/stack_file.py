"""Stack files: found by path or by name, read, and changed so that comments and order stay."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulumi_vllm.cli import pulumi_yaml
from pulumi_vllm.component import project_file
from pulumi_vllm.plan import yaml_text
from pulumi_vllm.plan.errors import ConfigError

_BLOCK = ("config", "pulumi-vllm:server")


class StackFileError(Exception):
    """A stack file cannot be read or changed."""


def find(stack: str) -> Path:
    """Return the file of that path, else the file of that stack of the project in this folder or above it.

    Raises:
        StackFileError: there is none, or Pulumi.yaml cannot be read.
    """
    if (path := Path(stack)).is_file():
        return path
    project = project_file.find_above(Path.cwd())
    if project is None:
        raise StackFileError(
            f"{stack}: no such file, and no Pulumi.yaml here or above; run this in the project's folder, "
            "or give the path of a stack file"
        )
    where = Path(os.path.relpath(project))
    try:
        path = pulumi_yaml.stack_file(pulumi_yaml.parse(pulumi_yaml.read(where), str(where)), where, stack)
    except pulumi_yaml.ProjectFileError as error:
        raise StackFileError(str(error)) from None
    if not path.is_file():
        raise StackFileError(
            f"{stack}: no such stack: {path} is missing; give a stack of the project, or the path of a stack file"
        )
    return path


def folders_of(path: Path) -> tuple[Path, ...]:
    """Where the model files of a stack file are: beside it, and in its project."""
    project = project_file.find_above(path.resolve().parent)
    return (path.parent,) if project is None else (path.parent, project.parent)


def value_of(path: Path, key: str, text: str | None = None) -> Any:
    """Return the value of a key of the configuration, or None if there is none.

    Raises:
        StackFileError: the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        document: Any = yaml_text.load(path.read_text() if text is None else text, str(path))
    except OSError as error:
        raise StackFileError(f"{path}: {error.strerror}; name a stack file") from None
    except UnicodeDecodeError:
        raise StackFileError(f"{path}: is not UTF-8 text; write it as UTF-8") from None
    except ConfigError as error:
        raise StackFileError(str(error)) from None
    try:
        return document["config"].get(key)
    except (KeyError, TypeError, AttributeError):
        return None


def block_of(path: Path, text: str | None = None) -> dict[str, Any]:
    """Return the block `pulumi-vllm:server`.

    Raises:
        StackFileError: the file cannot be read, is not YAML, has a key twice, or has no such block.
    """
    block = value_of(path, _BLOCK[-1], text)
    if isinstance(block, str | int | float | list):
        kind = (
            "text"
            if isinstance(block, str)
            else "a list"
            if isinstance(block, list)
            else yaml_text.in_yaml(block)
        )
        raise StackFileError(
            f"{path}: config.pulumi-vllm:server: is {kind}, not a block of keys; "
            "docs/reference/stack-file.md lists them"
        )
    if not isinstance(block, dict):
        raise StackFileError(f"{path}: no `config: pulumi-vllm:server:` in it; see stacks/ for examples")
    return block


def put(block: dict[str, Any], dotted: str) -> None:
    """Set one value of the block: `machine.count=1`. The value is YAML."""
    path, equals, value = dotted.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise StackFileError(f"--set {dotted}: is not key=value; write for example --set machine.count=1")
    try:
        parsed = yaml_text.load(value, f"--set {dotted}")
    except ConfigError as error:
        raise StackFileError(str(error)) from None
    at = block
    for key in keys[:-1]:
        below = at.setdefault(key, {})
        if not isinstance(below, dict):
            raise StackFileError(f"--set {dotted}: {key} is a value, not a block; give a key that exists")
        at = below
    at[keys[-1]] = parsed


def change(text: str, values: Mapping[str, str | int | float | None]) -> str:
    """Return the text with these values of the block set, by dotted key; None removes the key.

    Comments and layout stay. A missing key is added after the first key of its block.
    """
    # Only this function needs ruamel.yaml, which takes 0.02 s to import.
    from pulumi_vllm.cli import yaml_edit

    def set_values(document: Any) -> None:
        for dotted, value in values.items():
            _set(document, (*_BLOCK, *dotted.split(".")), value)

    try:
        return yaml_edit.edit(text, set_values)
    except yaml_edit.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise StackFileError(f"the stack file cannot be changed: {problem}; correct it") from None


def _set(block: Any, keys: tuple[str, ...], value: str | float | None) -> None:
    *path, last = keys
    for depth, key in enumerate(path):
        if not isinstance(block.get(key), dict):
            raise StackFileError(f"{'.'.join(keys[1 : depth + 1])}: is missing; write it as a block")
        block = block[key]
    if value is None:
        block.pop(last, None)
    elif last in block:
        block[last] = value
    else:
        block.insert(1, last, value)
