"""The stack file's `pulumi-vllm:server` block as frozen data.

Every key has its description below it. `change` says what a change of the key does to a running stack. The reference
of the stack file and its JSON Schema are generated from both. Its blocks have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic
from pydantic import BeforeValidator, PlainValidator, ValidationInfo, WithJsonSchema

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import (
    config_errors,
    defaults,
    own_files,
    own_gpus,
    own_machine,
    own_models,
    quantities,
    storage,
)
from pulumi_vllm.plan.access_config import Access
from pulumi_vllm.plan.catalogue_lookup import CatalogueLookup
from pulumi_vllm.plan.config_fields import (
    FIREWALL,
    MOST_RUNNING_REQUESTS,
    NOTHING,
    RELOAD,
    REPLACE,
    RESTART,
    WEIGHTS,
    Block,
    key,
    lookup,
    refuse_for_own_machine,
)
from pulumi_vllm.plan.engine_config import EngineOptions
from pulumi_vllm.plan.errors import ConfigError
from pulumi_vllm.plan.gateway_config import Gateway, Requests
from pulumi_vllm.plan.machine_config import Machine
from pulumi_vllm.plan.schedule_config import Schedule
from pulumi_vllm.plan.weights_config import Weights

if TYPE_CHECKING:
    import pathlib

LARGEST_VOLUME_GB: Final = 64_000
"""The largest volume that any provider of Spheron documents (2026-05)."""

_SEQUENCES = {"batch": 512, "throughput": 256, "latency": 32, "long": 8}
"""Requests at once by profile. An engine has others for cards on which they were measured (its `sequences`)."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._:-]{0,95}){0,3}")


def _model_name(value: object) -> str:
    text = str(value)
    if not _MODEL_NAME.fullmatch(text):
        msg = f"{text[:80]!r} is not a model name; write up to four parts of letters, digits and ._:-, with / between"
        raise ValueError(msg)
    return text


def _storage(value: object) -> int | own_machine.Store:
    """The size of a volume to rent, or a place on a machine of one's own."""
    if isinstance(value, Mapping):
        return own_machine.store(value)
    size_gb = quantities.gigabytes(value)
    if size_gb > LARGEST_VOLUME_GB:
        msg = f"{value!r} is out of range; write at most {LARGEST_VOLUME_GB}"
        raise ValueError(msg)
    return size_gb


_STORAGE_SCHEMA = {
    "anyOf": [
        *quantities.GIGABYTES_SCHEMA["anyOf"],
        {
            "type": "object",
            "properties": {"path": {"type": "string"}, "device": {"type": "string"}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}


Tokens = Annotated[int, BeforeValidator(quantities.tokens), WithJsonSchema(quantities.TOKENS_SCHEMA)]
Storage = Annotated[int | own_machine.Store, PlainValidator(_storage), WithJsonSchema(_STORAGE_SCHEMA)]
# The cloud ends no machine within its first 20 minutes.
Period = Annotated[
    int,
    BeforeValidator(quantities.seconds_between("30m", "366d")),
    WithJsonSchema(quantities.SECONDS_SCHEMA),
]
ModelName = Annotated[str, BeforeValidator(_model_name)]


class Deployment(Block):
    """One served model on one machine, as the stack file describes it."""

    model: Annotated[str, key(WEIGHTS)]
    """Name of a model of the catalogue or of `models/NAME.yaml` beside the stack file, or the path of such a file, for
    example `./models/x.yaml`. Clients write the model's name as `model`, or its name at the hub, or an alias."""
    aliases: Annotated[tuple[ModelName, ...], key(RESTART)] = ()
    """Further names that clients may write as `model`, for example `gpt-4o`."""
    precision: Annotated[str | None, key(WEIGHTS)] = None
    """Precision of the weights, as in the catalogue; unset takes the model's first."""
    context: Annotated[Tokens, key(RESTART, "tokens, for example `32768` or `32Ki`")]
    """Longest request in tokens, prompt and answer together (vLLM's `max-model-len`)."""
    concurrency: Annotated[int | None, key(RESTART, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = None
    """Requests served at the same time (vLLM's `max-num-seqs`). Set this or `profile`."""
    profile: Annotated[str | None, key(RESTART, pattern="^(batch|throughput|latency|long)$")] = None
    """How many requests are served at once. `throughput`, which unset means: as many as answer at a TPOT of about 55 ms
    (512 on H200 with vLLM 0.33.0, otherwise 256). `batch`: the cheapest tokens (1,024 there, otherwise 512). `latency`:
    32. `long`: 8."""
    machine: Annotated[Machine, key(REPLACE)]
    """The machine to rent, or one that somebody else made."""
    storage: Annotated[
        Storage, key("grows the volume; a volume cannot shrink", "GB, for example `300GB` or `1TB`")
    ]
    """Size of the volume that keeps weights and caches. With `machine.cloud: none` a place on the machine:
    `{path: /data/llm}` is a directory or a mounted path, `{device: /dev/nvme1n1}` a device, which is formatted only
    if it is blank."""
    volume: Annotated[str | None, key("applies when the volume is created", min_length=1)] = None
    """Name of a volume at the cloud to use in place of a new one, such as one that was kept under an earlier name of
    the stack. `preview` names such volumes."""
    access: Annotated[Access, key(FIREWALL)] = Access.model_construct()
    """Who may reach the machine."""
    weights: Annotated[Weights, key("applies to the next download of weights")] = Weights.model_construct()
    """Where the weights come from."""
    gateway: Annotated[Gateway, key(RELOAD)] = Gateway.model_construct()
    """Limits at the gateway."""
    requests: Annotated[Requests, key(RESTART)] = Requests.model_construct()
    """What one request may ask for, and how it is adapted to the model."""
    engine: Annotated[EngineOptions, key(RESTART)] = EngineOptions.model_construct()
    """How vLLM is started, beyond what the plan decides."""
    drain_timeout_s: Annotated[
        int, key("applies to the next stop of the engine", "seconds", ge=0, le=3600)
    ] = defaults.DRAIN_TIMEOUT_S
    """How long running requests may take to finish before the engine is stopped."""
    ready_timeout_s: Annotated[int, key(RESTART, "seconds", ge=60, le=86_400)] = defaults.READY_TIMEOUT_S
    """How long vLLM may take from its start until it answers. `up` gives up earlier when vLLM makes no progress."""
    notify_command: Annotated[tuple[str, ...], key("applies to the next notification")] = ()
    """A program on the host and its arguments, for example `[/usr/local/bin/page, --urgent]`. It runs when vLLM or the
    gateway has failed for good, with a JSON message on its standard input. Put no secret into the arguments."""
    owner: Annotated[str | None, key("renames the machine at the cloud", pattern="^[a-z][a-z0-9]{0,7}$")] = (
        None
    )
    """Who is responsible: up to 8 letters and digits. The machine's name at the cloud holds it, so that
    `pulumi-vllm sweep` shows it without the state."""
    expires: Annotated[
        Period | None, key("renames the machine at the cloud", "a time, for example `8h` or `2d`")
    ] = None
    """How long the machine runs after the start of the last `pulumi up`, which begins the period again. The host warns,
    drains and powers off. The name at the cloud holds the end, for `pulumi-vllm sweep --expired`."""
    idle_stop: Annotated[Period | None, key("applies within a minute", "a time, for example `2h`")] = None
    """How long the machine runs without a request. Those of the canary don't count, running ones do. The host warns
    before, drains and powers off."""
    schedule: Annotated[Schedule, key(NOTHING)] = Schedule.model_construct()
    """When the machine is meant to run."""
    unreachable: Annotated[str, key(NOTHING, pattern=f"^({'|'.join(defaults.UNREACHABLE_CHOICES)})$")] = (
        defaults.UNREACHABLE
    )
    """What a preview shows for a host that it can't observe. `error`: a change, so that `preview --expect-no-changes`
    fails. `warn`: a warning only, for a preview that runs where the firewall admits no SSH."""

    @property
    def storage_gb(self) -> int:
        """Size of the volume to rent; 0 where none is rented."""
        return self.storage if isinstance(self.storage, int) else 0

    @property
    def store(self) -> own_machine.Store:
        """Where a machine that somebody else made keeps weights and caches."""
        return self.storage if isinstance(self.storage, own_machine.Store) else own_machine.Store()

    @pydantic.field_validator("volume", "owner", "expires", "idle_stop", "schedule")
    @classmethod
    def _of_a_rented_machine(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_for_own_machine(value, info)
        return value

    @pydantic.field_validator("volume")
    @classmethod
    def _one_volume(cls, name: str | None, info: ValidationInfo) -> str | None:
        machine = info.data.get("machine")
        if name is not None and machine is not None and machine.replace == "overlap":
            msg = "names one volume, and machine.replace: overlap needs a second one; leave one of them out"
            raise ValueError(msg)
        return name

    @pydantic.field_validator("notify_command")
    @classmethod
    def _absolute_program(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not words[0].startswith("/"):
            msg = f"begins with {words[0]!r}; begin with the full path of the program, which starts with /"
            raise ValueError(msg)
        return words

    _own_model: catalogues.Model | None = pydantic.PrivateAttr(default=None)
    _measured_sequences: Mapping[str, int] = pydantic.PrivateAttr(default_factory=dict)

    @property
    def own_model(self) -> catalogues.Model | None:
        """The model of a file that `model` names; None if it is one of the catalogue."""
        return self._own_model

    _own_gpus: Mapping[str, catalogues.Gpu] = pydantic.PrivateAttr(default_factory=dict)

    @property
    def own_gpus(self) -> Mapping[str, catalogues.Gpu]:
        """The GPUs of files that `machine.gpu` names."""
        return self._own_gpus

    @classmethod
    def parse(
        cls,
        block: Mapping[str, Any],
        catalogue: catalogues.Catalogue | None = None,
        folders: tuple[pathlib.Path, ...] = (),
    ) -> Deployment:
        """Validate the block against the types above and the catalogue, and the model and GPU files that it names.

        Args:
            block: the block of a stack file.
            catalogue: a catalogue other than that of the data files.
            folders: where the user's model and GPU files are; none are the working directory and its folder stacks/.

        Raises:
            ConfigError: with every error in the block, and in those files.
        """
        lookup = CatalogueLookup(catalogues.load() if catalogue is None else catalogue)
        messages: tuple[str, ...] = ()
        name = block.get("model") if isinstance(block, Mapping) else None
        try:
            lookup.own = own_models.find(name, folders or own_files.PLACES, lookup.catalogue)
        except ConfigError as error:
            messages, lookup.own_is_wrong = error.errors, True
        try:
            if isinstance(block, Mapping):
                block, lookup.own_gpus = own_gpus.resolved(
                    block, folders or own_files.PLACES, lookup.catalogue
                )
        except ConfigError as error:
            messages, lookup.own_gpu_is_wrong = (*messages, *error.errors), True
        try:
            found = cls.model_validate(block, context=lookup)
        except pydantic.ValidationError as error:
            messages += config_errors.messages(error, cls, "server")
        else:
            if not messages:
                found._own_model = lookup.own  # noqa: SLF001 - of this class
                found._own_gpus = lookup.own_gpus  # noqa: SLF001
                found._measured_sequences = lookup.sequences  # noqa: SLF001
                return found
        # A volume that is too small is an error of its own in an otherwise valid block: see plan().
        raise ConfigError((*messages, *storage.too_small(lookup)))

    def on(self, gpu: str, count: int | None = None) -> Deployment:
        """The same deployment on another machine, of one kind of GPU."""
        changes = {"gpus": (gpu,)} | ({} if count is None else {"count": count})
        return self.model_copy(update={"machine": self.machine.model_copy(update=changes)})

    @property
    def sequences(self) -> int:
        """Requests served at the same time, from `concurrency` or `profile`."""
        if self.concurrency is not None:
            return self.concurrency
        profile = self.profile or "throughput"
        return self._measured_sequences.get(profile, _SEQUENCES[profile])

    @pydantic.field_validator("model")
    @classmethod
    def _known_model(cls, name: str, info: ValidationInfo) -> str:
        return lookup(info).find_model(name)

    @pydantic.field_validator("precision")
    @classmethod
    def _published_precision(cls, name: str | None, info: ValidationInfo) -> str | None:
        return name if name is None else lookup(info).find_precision(name)

    @pydantic.field_validator("context")
    @classmethod
    def _supported_context(cls, context: int, info: ValidationInfo) -> int:
        model = lookup(info).model
        if model is not None and context > model.maximum_context:
            limit = model.maximum_context
            msg = f"{context:,} tokens are beyond {model.name}'s {limit:,}; use {limit}"
            raise ValueError(msg)
        return context

    @pydantic.field_validator("concurrency")
    @classmethod
    def _noted_concurrency(cls, concurrency: int | None, info: ValidationInfo) -> int | None:
        lookup(info).concurrency = concurrency
        return concurrency

    @pydantic.field_validator("profile")
    @classmethod
    def _profile_or_concurrency(cls, profile: str | None, info: ValidationInfo) -> str | None:
        # A wrong concurrency is absent from the data, an unset one is None.
        if profile is not None and ("concurrency" not in info.data or info.data["concurrency"] is not None):
            msg = "sets the same as server.concurrency; keep one of them"
            raise ValueError(msg)
        return profile

    @pydantic.field_validator("storage")
    @classmethod
    def _storage_of_the_machine(
        cls, found: int | own_machine.Store, info: ValidationInfo
    ) -> int | own_machine.Store:
        own = lookup(info).own_machine
        if isinstance(found, int):
            if own:
                msg = (
                    f"{found} GB is the size of a volume to rent, and machine.cloud is none; "
                    "write a place on the machine such as {path: /data/llm}"
                )
                raise ValueError(msg)
            lookup(info).storage_gb = found
        elif own is False:
            msg = f"{found.place} is a place on a machine with cloud: none; write a size such as 300GB"
            raise ValueError(msg)
        return found
