"""A user's own GPU files, beside the stack files: `gpus/NAME.yaml`, or paths that the stack file names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import gpu_schema, own_files
from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Catalogue, Gpu

FOLDER: Final = "gpus"
"""Folder of the user's GPU files, beside the stack files or in the project."""


def resolved(
    block: Mapping[str, Any], folders: tuple[pathlib.Path, ...], catalogue: Catalogue
) -> tuple[Mapping[str, Any], dict[str, Gpu]]:
    """The block with the names of the GPUs in place of their files, and those GPUs by name.

    Raises:
        ConfigError: a file is missing, or wrong; with every error in it.
    """
    machine = block.get("machine")
    written = machine.get("gpu") if isinstance(machine, dict) else None
    names = written if isinstance(written, list | tuple) else (written,)
    own: dict[str, Gpu] = {}
    read: dict[str, str] = {}
    errors: tuple[str, ...] = ()
    for name in names:
        try:
            gpu = _find("server.machine.gpu", name, folders, catalogue)
        except ConfigError as error:
            errors += error.errors
        else:
            if gpu is not None:
                own[gpu.name], read[name] = gpu, gpu.name
    if errors:
        raise ConfigError(errors)
    if not read:
        return block, own
    chosen = [read.get(name, name) for name in names]
    gpus = chosen if isinstance(written, list | tuple) else chosen[0]
    return {**block, "machine": {**machine, "gpu": gpus}}, own  # type: ignore[dict-item]


def catalogue_with(option: str, name: str | None, known: Catalogue) -> tuple[Catalogue, str | None]:
    """The catalogue, and in it the GPU of a file if an option of a command names one; and the GPU's own name.

    Raises:
        ConfigError: the file is missing, or wrong; with every error in it.
    """
    gpu = _find(option, name, own_files.PLACES, known)
    return (known, name) if gpu is None else (replace(known, gpus={**known.gpus, gpu.name: gpu}), gpu.name)


def _find(key: str, name: object, folders: tuple[pathlib.Path, ...], catalogue: Catalogue) -> Gpu | None:
    shipped = catalogues.load().gpus
    if not isinstance(name, str) or (name in catalogue.gpus and name not in shipped):
        return None  # catalogue_with() has added it
    remedy = "`pulumi-vllm schema --gpu` prints what it must contain"
    path = own_files.located(key, name, FOLDER, folders, remedy, taken=shipped)
    if path is None:
        return None
    data = own_files.content(path)
    problems = gpu_schema.problems(data, str(path))
    found = data.get("name") if isinstance(data, dict) else None
    if found in catalogue.gpus:
        problems += (f"{path}: name: {found!r} is a GPU of the catalogue; choose another name",)
    elif not own_files.is_path(name) and isinstance(found, str) and found != name:
        problems += (f"{path}: name: {found!r} is not the file's name; write {name}, or rename the file",)
    if problems or not isinstance(data, dict):
        raise ConfigError(problems)
    newest = next(reversed([one for one in catalogue.engines.values() if one.runs_on == "cuda"]))
    return catalogues.gpu_of(str(found), {"engine": newest.version, **gpu_schema.fields(data)})
