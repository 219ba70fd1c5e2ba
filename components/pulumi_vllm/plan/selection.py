"""Looks up what a stack file names in the catalogue; what is not there is a mistake with the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import flags, memory
from pulumi_vllm.plan import quantities as units
from pulumi_vllm.plan.errors import ConfigError
from pulumi_vllm.plan.validation_messages import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Gpu, Model, Precision
    from pulumi_vllm.plan.config import Deployment

_SPARE_GIB = 10  # a partial file beside its whole, logs, the next engine's caches


@dataclass(frozen=True, slots=True)
class Choice:
    """The catalogue's entries for one stack file."""

    model: Model
    precision: Precision
    engine: Engine
    gpu: Gpu

    @property
    def vision_flags(self) -> Mapping[str, Any]:
        """What the engine sets where this precision's model accepts images."""
        return self.engine.vision_flags.get(self.precision.name, {})


@dataclass(frozen=True, slots=True)
class Named:
    """What a stack file names, as far as it can be read; None where it can't, which hides no other mistake."""

    model: str | None
    precision: str | None
    gpu: str | None
    version: str | None
    context: int | None
    storage_gb: int | None
    count: int | None
    billing: str | None
    fallback: str | None
    both: bool  # concurrency and profile
    ignore: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, deployment: Deployment) -> Named:
        """Everything, of a block whose shape is right."""
        machine, engine = deployment.machine, deployment.engine
        return cls(
            deployment.model,
            deployment.precision,
            machine.gpu,
            engine.version,
            deployment.context,
            deployment.storage_gb,
            machine.count,
            machine.billing,
            machine.fallback,
            deployment.concurrency is not None and deployment.profile is not None,
            tuple(engine.ignore),
            tuple(engine.flags),
        )

    @classmethod
    def in_block(cls, block: Mapping[str, Any]) -> Named:
        """What is readable of a block with mistakes."""
        machine, engine = _map(block, "machine"), _map(block, "engine")
        return cls(
            _text(block, "model"),
            _text(block, "precision"),
            _text(machine, "gpu"),
            _text(engine, "version"),
            _number(units.tokens, block.get("context")),
            _number(units.gigabytes, block.get("storage")),
            machine["count"] if isinstance(machine.get("count"), int) else None,
            _text(machine, "billing"),
            _text(machine, "fallback"),
            block.get("concurrency") is not None and block.get("profile") is not None,
            tuple(map(str, _map(engine, "ignore"))),
            tuple(map(str, _map(engine, "flags"))),
        )


def choose(deployment: Deployment, catalogue: Catalogue) -> Choice:
    """The entries that the stack file names, or ConfigError with every mistake among them."""
    named = Named.of(deployment)
    problems = contradictions(named, catalogue)
    if problems:
        raise ConfigError((*problems, *too_small(named, catalogue)))
    model, precision, engine, gpu = entries(named, catalogue)
    assert model is not None  # noqa: S101 - every name is known
    assert precision is not None  # noqa: S101 - every name is known
    assert engine is not None  # noqa: S101 - every name is known
    assert gpu is not None  # noqa: S101 - every name is known
    return Choice(model, precision, engine, gpu)


def entries(
    named: Named, catalogue: Catalogue
) -> tuple[Model | None, Precision | None, Engine | None, Gpu | None]:
    """The catalogue's entries; None for a name that is missing or unknown."""
    model, gpu = catalogue.models.get(named.model or ""), catalogue.gpus.get(named.gpu or "")
    precision = None
    if model:
        precision = model.precisions.get(named.precision or next(iter(model.precisions)))
    engine = None
    if named.version is not None:
        engine = catalogue.engines.get(named.version)
    elif gpu:
        engine = catalogue.engine("cpu" if gpu.name == "CPU" else "cuda")
    return model, precision, engine, gpu


def contradictions(named: Named, catalogue: Catalogue) -> list[str]:
    """Every name that the catalogue lacks, and every two that don't go together."""
    problems = list(_unknown(named, catalogue))
    model, precision, engine, gpu = entries(named, catalogue)
    if model and named.precision is not None and not precision:
        remedy = nearest(named.precision, model.precisions)
        problems.append(f"server.precision: {model.name} is not published in {named.precision!r}; {remedy}")
    if engine and gpu and engine.runs_on != ("cpu" if gpu.name == "CPU" else "cuda"):
        problems.append(f"server.engine.version: {engine.version} does not run on {gpu.name}; leave it out")
    if model and named.context is not None and named.context > model.maximum_context:
        limit = model.maximum_context
        problems.append(
            f"server.context: {named.context:,} tokens are beyond {model.name}'s {limit:,}; use {limit}"
        )
    if named.both:
        problems.append("server.profile: says the same as server.concurrency; keep one")
    if gpu and named.count is not None and (gpu.name == "CPU") != (named.count == 0):
        problems.append(f"server.machine.count: {named.count} with gpu {gpu.name}; it is 0 exactly for CPU")
    if named.fallback is not None and named.billing != "spot":
        problems.append("server.machine.fallback: only means something with billing: spot; leave it out")
    return problems + _owned(named)


def too_small(named: Named, catalogue: Catalogue) -> list[str]:
    """The volume, where it can't hold weights and caches."""
    _, precision, engine, _ = entries(named, catalogue)
    if not (precision and engine and named.storage_gb is not None):
        return []
    need = disk_gib(precision, engine)
    if named.storage_gb * 1e9 >= need * memory.GIB:
        return []
    short = f"{named.storage_gb} GB are less than the {need} GiB that weights and caches need"
    return [f"server.storage: {short}; use {-(-need * memory.GIB // 10**9)}GB"]


def disk_gib(precision: Precision, engine: Engine) -> int:
    """GiB that the volume needs: the weights, the caches, and some room."""
    more = engine.disk_gib + _SPARE_GIB if engine.runs_on == "cuda" else 0
    return -(-precision.bytes // memory.GIB) + more


def _map(block: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = block.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(block: Mapping[str, Any], key: str) -> str | None:
    value = block.get(key)
    return value if isinstance(value, str) else None


def _number(read: Callable[[object], int], value: object) -> int | None:
    try:
        return read(value)
    except ValueError:
        return None


_OWNED = {
    "model": "set server.model and server.precision",
    "served-model-name": "set server.model",
    "max-model-len": "set server.context",
    "max-num-seqs": "set server.concurrency or server.profile",
    "host": "the engine stays behind the gateway",
    "port": "the engine stays behind the gateway",
    "api-key": "name keys under server.access.keys",
}


def _owned(named: Named) -> list[str]:
    """Flags that another key of the stack file decides, and flags written with their dashes."""
    found = []
    for flag in named.flags:
        path = f"server.engine.flags.{flag}"
        if flag.startswith("-"):
            found.append(f"{path}: written with dashes; write {flag.lstrip('-')}")
        elif flag in _OWNED:
            found.append(f"{path}: not decided here; {_OWNED[flag]}")
        elif "_" in flag:
            found.append(f"{path}: not a flag of vLLM; did you mean {flag.replace('_', '-')}?")
    return found


def _unknown(named: Named, catalogue: Catalogue) -> list[str]:
    told: list[tuple[str, str | None, Iterable[str]]] = [
        ("server.model", named.model, catalogue.models),
        ("server.machine.gpu", named.gpu, catalogue.gpus),
        *((f"server.engine.ignore.{rule}", rule, flags.RULES) for rule in named.ignore),
        ("server.engine.version", named.version, catalogue.engines),
    ]
    return [
        f"{path}: {name!r} is not in the catalogue; {nearest(name, known)}"
        for path, name, known in told
        if name is not None and name not in known
    ]
