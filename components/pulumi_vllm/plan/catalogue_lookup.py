"""The catalogue's entries that a stack file names, collected while the file is validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pulumi_vllm.plan.card_names import card_name, card_suggestion
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Gpu, Model, Precision

_Entry = TypeVar("_Entry")
_SCHEMA = "`pulumi-vllm schema --gpu` prints its keys"


@dataclass(slots=True)
class CatalogueLookup:
    """Context of the validation: the catalogue, and the entries that were found so far.

    `own` is the model of the file that the block names; `own_is_wrong` if that file has errors. `own_gpus` are the GPUs
    of files, by name. `own_machine` is whether somebody else made the machine, once `machine.cloud` is known.
    `concurrency` is that of the block, once it is known.
    An entry stays None while its name is missing or unknown. A check that needs the entry is skipped then, so that one
    error does not cause others. The `find_` methods raise ValueError, as pydantic expects of a validator.
    """

    catalogue: Catalogue
    model: Model | None = None
    precision: Precision | None = None
    gpu: Gpu | None = None
    engine: Engine | None = None
    storage_gb: int | None = None
    concurrency: int | None = None
    own_machine: bool | None = None
    own: Model | None = None
    own_is_wrong: bool = False
    own_gpus: Mapping[str, Gpu] = field(default_factory=dict)
    own_gpu_is_wrong: bool = False

    @property
    def sequences(self) -> Mapping[str, int]:
        """Requests at once by profile, where the engine has measured ones for the GPU."""
        return {} if self.engine is None or self.gpu is None else self.engine.sequences.get(self.gpu.name, {})

    def find_model(self, name: str) -> str:
        """Look up a model. Its first precision is the default."""
        if self.own_is_wrong:
            return name  # the errors of its file are reported beside those of the block
        self.model = self.own or self.catalogue.models.get(name)
        if self.model is None:
            remedy = suggestion(name, self.catalogue.models)
            repository = name if name.count("/") == 1 else "OWNER/NAME"
            remedy += f"{_end(remedy)} `pulumi-vllm model add {repository}` describes another model in a file"
            msg = f"{name!r} is not in the catalogue; {remedy}"
            raise ValueError(msg)
        self.precision = next(iter(self.model.precisions.values()))
        return name

    def find_precision(self, name: str) -> str:
        """Look up a precision of the model."""
        self.precision = None
        if self.model is not None:
            if name not in self.model.precisions:
                msg = f"{self.model.name} is not published in {name!r}; {suggestion(name, self.model.precisions)}"
                raise ValueError(msg)
            self.precision = self.model.precisions[name]
        return name

    def find_gpu(self, name: str) -> str:
        """Look up a GPU family. Its default engine is chosen as well."""
        if self.own_gpu_is_wrong:
            return name  # the errors of its file are reported beside those of the block
        known = {**self.catalogue.gpus, **self.own_gpus}
        if name not in known:
            remedy = card_suggestion(name, known)
            if not remedy.startswith("write "):  # it is no form of a known GPU
                remedy += f"{_end(remedy)} Describe another GPU in gpus/{card_name(name)}.yaml: {_SCHEMA}"
            msg = f"{name!r} is not in the catalogue; {remedy}"
            raise ValueError(msg)
        self.gpu = known[name]
        self.engine = self.catalogue.default_engine(self.gpu)
        return name

    def find_engine(self, version: str) -> str:
        """Look up an engine version."""
        self.engine = None
        engine = _entry(version, self.catalogue.engines)
        if self.gpu is not None and engine.runs_on != self.gpu.runs:
            msg = f"{version} does not run on {self.gpu.name}; leave it out"
            raise ValueError(msg)
        self.engine = engine
        return version


def _end(remedy: str) -> str:
    """The end of a sentence after which another one follows."""
    return "" if remedy.endswith("?") else "."


def _entry(name: str, entries: Mapping[str, _Entry]) -> _Entry:
    if name not in entries:
        msg = f"{name!r} is not in the catalogue; {suggestion(name, entries)}"
        raise ValueError(msg)
    return entries[name]
