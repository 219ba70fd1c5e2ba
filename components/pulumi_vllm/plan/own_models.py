"""A user's own model files, beside the stack files: `models/NAME.yaml`, or a path that the stack file names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import model_schema, own_files
from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    import pathlib

    from pulumi_vllm.plan.catalogue import Catalogue, Model

FOLDER: Final = "models"
"""Folder of the user's model files, beside the stack files or in the project."""


def find(name: object, folders: tuple[pathlib.Path, ...], catalogue: Catalogue) -> Model | None:
    """The model of a file that `server.model` names; None if it names one of the catalogue, or none.

    Raises:
        ConfigError: the file is missing, or wrong; with every error in it.
    """
    shipped = catalogues.load().models
    if not isinstance(name, str) or (name in catalogue.models and name not in shipped):
        return None  # catalogue_with() has added it
    remedy = "`pulumi-vllm model add OWNER/NAME` writes one"
    path = own_files.located("server.model", name, FOLDER, folders, remedy, taken=shipped)
    return None if path is None else read(path, catalogue, None if own_files.is_path(name) else name)


def catalogue_with(name: str, folders: tuple[pathlib.Path, ...] = ()) -> Catalogue:
    """The catalogue, and in it the model of a file if `name` names one.

    Raises:
        ConfigError: the file is missing, or wrong; with every error in it.
    """
    known = catalogues.load()
    own = find(name, folders or own_files.PLACES, known)
    return known if own is None else replace(known, models={**known.models, name: own})


def read(path: pathlib.Path, catalogue: Catalogue, name: str | None = None) -> Model:
    """The model of a file. A file under models/ is named as its model.

    Raises:
        ConfigError: with every error in it.
    """
    data = own_files.content(path)
    problems = model_schema.problems(data, str(path))
    found = data.get("name") if isinstance(data, dict) else None
    if found in catalogue.models:
        problems += (f"{path}: name: {found!r} is a model of the catalogue; choose another name",)
    elif name is not None and isinstance(found, str) and found != name:
        problems += (f"{path}: name: {found!r} is not the file's name; write {name}, or rename the file",)
    if problems or not isinstance(data, dict):
        raise ConfigError(problems)
    return catalogues.model_of(data)
