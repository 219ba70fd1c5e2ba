"""A user's own files beside the stack files, `models/NAME.yaml` and `gpus/NAME.yaml`: found, and read."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan import yaml_text
from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Container

PLACES: Final = (pathlib.Path(), pathlib.Path("stacks"))
"""Where such files are without a stack file: in the working directory, which is the project, and beside its stacks."""

_LARGEST_BYTES: Final = 1_000_000


def is_path(name: str) -> bool:
    """Whether a name in a stack file is the path of a file."""
    return name.endswith((".yaml", ".yml"))


def located(
    key: str,
    name: str,
    folder: str,
    folders: tuple[pathlib.Path, ...],
    remedy: str,
    *,
    taken: Container[str],
) -> pathlib.Path | None:
    """The file that a key of the stack file names; None if it names none.

    `taken` are the names in the catalogue. A file does not replace an entry of the catalogue.

    Raises:
        ConfigError: it names the path of a file that does not exist, or a name that is taken.
    """
    if not is_path(name) and "/" in name:
        return None  # a repository, or a misspelled name: the catalogue's lookup says so
    relative = name if is_path(name) else f"{folder}/{name}.yaml"
    path = next((one for place in folders if (one := place / relative).is_file()), None)
    if path is None and is_path(name):
        places = " or ".join(str(place) for place in folders)
        raise ConfigError((f"{key}: there is no file {name} in {places}; {remedy}",))
    if path is not None and name in taken:
        raise ConfigError((f"{path}: {name} is in the catalogue too; rename the file, and the name in it",))
    return path


def content(path: pathlib.Path) -> object:
    """What a file says, None if it is too large to be one.

    Raises:
        ConfigError: it cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError((f"{path}: cannot be read ({reason}); correct it",)) from None
    return yaml_text.load(text, str(path)) if len(text) <= _LARGEST_BYTES else None
