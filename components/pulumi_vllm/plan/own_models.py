"""A user's own model files, beside the stack files: `models/NAME.yaml`, or a path that the stack file names."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import yaml

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import model_schema
from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Catalogue, Model

FOLDER: Final = "models"
"""Folder of the user's model files, beside the stack files or in the project."""

PLACES: Final = (pathlib.Path(), pathlib.Path("stacks"))
"""Where model files are without a stack file: in the working directory, which is the project, and beside its stacks."""

_LARGEST_BYTES: Final = 1_000_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find(name: object, folders: tuple[pathlib.Path, ...], catalogue: Catalogue) -> Model | None:
    """The model of a file that `server.model` names; None if it names one of the catalogue, or none.

    Raises:
        ConfigError: the file is missing, or wrong; with every error in it.
    """
    if not isinstance(name, str) or name in catalogue.models:
        return None  # also the name under which catalogue_with() has added one
    is_path = name.endswith((".yaml", ".yml"))
    if is_path or "/" in name:
        candidates = [folder / name for folder in folders]
        if not is_path:
            return None  # a repository, or a misspelled name: the catalogue's lookup says so
    else:
        candidates = [folder / FOLDER / f"{name}.yaml" for folder in folders]
    path = next((one for one in candidates if one.is_file()), None)
    if path is not None:
        return read(path, catalogue, None if is_path else name)
    if not is_path:
        return None
    places = " or ".join(str(folder) for folder in folders)
    raise ConfigError(
        (f"server.model: there is no file {name} in {places}; `pulumi-vllm model add OWNER/NAME` writes one",)
    )


def catalogue_with(name: str, folders: tuple[pathlib.Path, ...] = ()) -> Catalogue:
    """The catalogue, and in it the model of a file if `name` names one.

    Raises:
        ConfigError: the file is missing, or wrong; with every error in it.
    """
    known = catalogues.load()
    own = find(name, folders or PLACES, known)
    return known if own is None else replace(known, models={**known.models, name: own})


def read(path: pathlib.Path, catalogue: Catalogue, name: str | None = None) -> Model:
    """The model of a file. A file under models/ is named as its model.

    Raises:
        ConfigError: with every error in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_LOADER) if len(text) <= _LARGEST_BYTES else None  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((f"{path}: cannot be read ({error}); correct it",)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            (f"{path}{line}: is not YAML: {getattr(error, 'problem', error)}; correct it",)
        ) from None
    problems = model_schema.problems(data, str(path))
    found = data.get("name") if isinstance(data, dict) else None
    if found in catalogue.models:
        problems += (f"{path}: name: {found!r} is a model of the catalogue; choose another name",)
    elif name is not None and isinstance(found, str) and found != name:
        problems += (f"{path}: name: {found!r} is not the file's name; write {name}, or rename the file",)
    if problems or not isinstance(data, dict):
        raise ConfigError(problems)
    return catalogues.model_of(data)
