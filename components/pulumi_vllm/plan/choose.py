"""Looks up what a stack file names in the catalogue; what is not there is a mistake with the nearest name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import flags
from .errors import ConfigError
from .mistakes import nearest

if TYPE_CHECKING:
    from .catalogue import Catalogue, Engine, Gpu, Model, Precision
    from .config import Deployment


@dataclass(frozen=True, slots=True)
class Choice:
    """The catalogue's entries for one stack file."""

    model: Model
    precision: Precision
    engine: Engine
    gpu: Gpu


def choose(deployment: Deployment, catalogue: Catalogue) -> Choice:
    """The entries that the stack file names, or ConfigError with every unknown name."""
    problems = list(_unknown(deployment, catalogue))
    if problems:
        raise ConfigError(tuple(problems))
    model, gpu = catalogue.models[deployment.model], catalogue.gpus[deployment.machine.gpu]
    precision = next(iter(model.precisions)) if deployment.precision is None else deployment.precision
    kind = "cpu" if gpu.name == "CPU" else "cuda"
    version = deployment.engine.version
    engine = catalogue.engine(kind) if version is None else catalogue.engines[version]
    problems = []
    if precision not in model.precisions:
        remedy = nearest(precision, model.precisions)
        problems.append(f"server.precision: {model.name} is not published in {precision!r}; {remedy}")
    if engine.runs_on != kind:
        problems.append(f"server.engine.version: {engine.version} does not run on {gpu.name}; leave it out")
    if deployment.context > model.maximum_context:
        limit = model.maximum_context
        problems.append(
            f"server.context: {deployment.context:,} tokens are beyond {model.name}'s {limit:,}; use {limit}"
        )
    problems += _owned(deployment)
    if problems:
        raise ConfigError(tuple(problems))
    return Choice(model, model.precisions[precision], engine, gpu)


_OWNED = {
    "model": "set server.model and server.precision",
    "served-model-name": "set server.model",
    "max-model-len": "set server.context",
    "max-num-seqs": "set server.concurrency or server.profile",
    "host": "the engine stays behind the door",
    "port": "the engine stays behind the door",
    "api-key": "name keys under server.access.keys",
}


def _owned(deployment: Deployment) -> list[str]:
    """Flags that another key of the stack file decides, and flags written with their dashes."""
    found = []
    for flag in deployment.engine.flags:
        path = f"server.engine.flags.{flag}"
        if flag.startswith("-"):
            found.append(f"{path}: written with dashes; write {flag.lstrip('-')}")
        elif flag in _OWNED:
            found.append(f"{path}: not decided here; {_OWNED[flag]}")
        elif "_" in flag:
            found.append(f"{path}: not a flag of vLLM; did you mean {flag.replace('_', '-')}?")
    return found


def _unknown(deployment: Deployment, catalogue: Catalogue) -> list[str]:
    named: list[tuple[str, str, object]] = [
        ("server.model", deployment.model, catalogue.models),
        ("server.machine.gpu", deployment.machine.gpu, catalogue.gpus),
        *((f"server.engine.waive.{rule}", rule, flags.RULES) for rule in deployment.engine.waive),
    ]
    if deployment.engine.version is not None:
        named.append(("server.engine.version", deployment.engine.version, catalogue.engines))
    found = []
    for path, name, known in named:
        if name not in known:  # type: ignore[operator]
            found.append(f"{path}: {name!r} is not in the catalogue; {nearest(name, known)}")  # type: ignore[arg-type]
    return found
