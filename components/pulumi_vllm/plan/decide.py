"""Deployment → Plan: what to run, with which flags, whether it fits, what it costs, and why. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import catalogue as catalogues
from . import flags, memory, price, reasons
from .choose import Choice, Named, choose, disk_gib, too_small
from .errors import DoesNotFit, LintError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalogue import Catalogue, Engine, Model
    from .config import Deployment
    from .flags import Finding
    from .memory import Budget
    from .offer import Offer

ENGINE_PORT = 8000
"""Where vLLM listens, on loopback only."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before a machine exists. `budget` and `because` are sentences for a person.

    `measured` is yes (exactly these flags were started), "other flags", or no.
    """

    deployment: Deployment
    model: Model
    engine: Engine
    precision: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    memory: Budget | None
    budget: tuple[str, ...]
    disk_gib: int
    because: tuple[str, ...]
    findings: tuple[Finding, ...]
    usd_per_hour: float | None
    usd_per_million_output_tokens: float | None
    measured: str
    secrets: tuple[str, ...]
    needs_nvswitch: bool

    @property
    def repository(self) -> str:
        """Repository of the weights."""
        return self.model.precisions[self.precision].repository

    @property
    def revision(self) -> str:
        """Pinned revision of the weights, 40 hex digits."""
        return self.model.precisions[self.precision].revision

    @property
    def weights_directory(self) -> str:
        """Where the weights lie on the host."""
        return f"/models/weights/{self.repository}/{self.revision}"

    @property
    def cache_directory(self) -> str:
        """Where this engine's caches lie on the host; they survive the machine."""
        return f"/models/cache/{self.engine.version}"

    @property
    def served_name(self) -> str:
        """What clients write as `model`."""
        return self.model.name

    def summary(self) -> dict[str, Any]:
        """The `plan` export: JSON-able, no secrets."""
        machine = self.deployment.machine
        return {
            "machine": f"{machine.count}x {machine.gpu}" if machine.count else machine.gpu,
            "billing": machine.billing,
            "model": self.model.name,
            "precision": self.precision,
            "engine": self.engine.version,
            "flags": list(self.argv),
            "environment": dict(self.environment),
            "budget": list(self.budget),
            "disk_gib": self.disk_gib,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_million_output_tokens": self.usd_per_million_output_tokens,
            **self._memory(),
            "labels": self._labels(),
            "because": list(self.because),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def _memory(self) -> dict[str, Any]:
        """Of each GPU, GiB; a plan that does not fit is never made. Without a GPU there is nothing to tell."""
        found = self.memory
        return {
            "fits": True,
            "weights_gib_per_gpu": None if found is None else round(found.weights_gib, 2),
            "kv_cache_gib_per_gpu": None if found is None else round(found.cache_gib, 2),
            "kv_cache_tokens": None if found is None else found.kv_tokens,
            "full_length_requests": None if found is None else round(found.full_requests, 2),
        }

    def _labels(self) -> dict[str, str]:
        """Where each figure is from."""
        started = {"yes": "computed; these flags were started", "no": "computed, unverified"}
        memory = started.get(self.measured, "computed; other flags were started on this machine")
        per_million = {"yes": "measured", "no": "unknown"}.get(self.measured, "measured with other flags")
        names = (
            "fits",
            "weights_gib_per_gpu",
            "kv_cache_gib_per_gpu",
            "kv_cache_tokens",
            "full_length_requests",
        )
        if self.memory is None:
            return {"fits": "assumed: no GPU"}
        return {**dict.fromkeys(names, memory), "usd_per_million_output_tokens": per_million}


def plan(
    deployment: Deployment, offers: Sequence[Offer] | None = None, catalogue: Catalogue | None = None
) -> Plan:
    """Decide, or raise ConfigError, DoesNotFit or LintError, each with every mistake of its kind."""
    known = catalogues.load() if catalogue is None else catalogue
    choice = choose(deployment, known)
    chosen = {**_flags(deployment, choice), **deployment.engine.flags}
    environment = _environment(deployment, choice)
    budget = _budget(choice, chosen)
    findings = _lint(deployment, choice, budget)
    wrong = [one for one in findings if one.severity == "error" and one.waived is None]
    refused = [f"server.engine.flags: {one.sentence} ({one.evidence})" for one in wrong]
    short = too_small(Named.of(deployment), known)
    if budget is not None and not budget.fits:
        short.append(reasons.shortfall(deployment, choice, budget))
    if short or refused:
        raise (DoesNotFit if short else LintError)((*short, *refused))
    argv = flags.argv(chosen)
    machine = (choice.gpu.name, deployment.machine.count)
    measured = known.measurement(
        (choice.model.name, choice.precision.name, choice.engine.version, *machine), argv
    )
    cost = price.per_hour(deployment, choice.gpu, offers, known.prices_from)
    busiest = price.rate(measured, deployment.sequences)
    per_million = price.per_million(cost.usd_per_hour, busiest[1] if busiest else None)
    return Plan(
        deployment=deployment,
        model=choice.model,
        engine=choice.engine,
        precision=choice.precision.name,
        argv=argv,
        environment=environment,
        memory=budget,
        budget=reasons.budget(budget),
        disk_gib=disk_gib(choice.precision, choice.engine),
        because=reasons.because(
            deployment, choice, budget, cost, findings=findings, measured=measured, argv=argv
        ),
        findings=findings,
        usd_per_hour=cost.usd_per_hour,
        usd_per_million_output_tokens=None if per_million is None else round(per_million, 4),
        measured="no" if measured is None else "yes" if measured.flags == argv else "other flags",
        secrets=("hf_token", "gate_token", "keys_map", "tls_pem"),
        needs_nvswitch=choice.gpu.nvswitch_from is not None
        and deployment.machine.count >= choice.gpu.nvswitch_from,
    )


def findings(deployment: Deployment, catalogue: Catalogue | None = None) -> tuple[Finding, ...]:
    """What the lint says about a stack's flags, whether or not it fits."""
    choice = choose(deployment, catalogues.load() if catalogue is None else catalogue)
    chosen = {**_flags(deployment, choice), **deployment.engine.flags}
    return _lint(deployment, choice, _budget(choice, chosen))


def _lint(deployment: Deployment, choice: Choice, budget: Budget | None) -> tuple[Finding, ...]:
    chosen = {**_flags(deployment, choice), **deployment.engine.flags}
    # A cache that is too small for one request is refused with the missing GiB, not as a finding.
    tokens = budget.kv_tokens if budget is not None and budget.fits else None
    launch = flags.Launch(
        chosen,
        _environment(deployment, choice),
        choice.model,
        choice.precision,
        choice.engine,
        deployment.machine.count,
        tokens,
    )
    return flags.lint(launch, deployment.engine.waive)


def _flags(deployment: Deployment, choice: Choice) -> dict[str, Any]:
    """Every flag that we decide, in the order of the command line."""
    chosen: dict[str, Any] = {
        "model": f"/models/weights/{choice.precision.repository}/{choice.precision.revision}",
        "served-model-name": choice.model.name,
        "host": "127.0.0.1",
        "port": ENGINE_PORT,
        **choice.model.flags,
        **choice.engine.flags,
        **choice.engine.precision_flags.get(choice.precision.name, {}),
        "max-model-len": deployment.context,
        "max-num-seqs": deployment.sequences,
    }
    if deployment.machine.count > 1:
        chosen["tensor-parallel-size"] = deployment.machine.count
        chosen.update(choice.engine.tensor_parallel["flags"])
    return chosen


def _environment(deployment: Deployment, choice: Choice) -> dict[str, str]:
    caches = f"/models/cache/{choice.engine.version}"
    environment = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "XDG_CACHE_HOME": caches,
        "VLLM_CACHE_ROOT": f"{caches}/vllm",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TORCH_EXTENSIONS_DIR": f"{caches}/extensions",
        "FLASHINFER_WORKSPACE_BASE": f"{caches}/flashinfer",
        "CUDA_CACHE_PATH": f"{caches}/cuda",
        **choice.engine.environment,
    }
    if deployment.machine.count > 1:
        environment.update(choice.engine.tensor_parallel["environment"])
    return environment


def _budget(choice: Choice, chosen: Mapping[str, Any]) -> Budget | None:
    if choice.engine.runs_on == "cpu":
        return None
    load = memory.Load(
        tensor_parallel=int(chosen.get("tensor-parallel-size", 1)),
        context=int(chosen["max-model-len"]),
        sequences=int(chosen["max-num-seqs"]),
        utilization=float(chosen["gpu-memory-utilization"]),
        batched_tokens=int(chosen.get("max-num-batched-tokens", choice.engine.memory["batched_tokens"])),
        vision=not chosen.get("language-model-only", False),
    )
    return memory.budget(choice.model.dimensions, choice.precision, choice.engine, choice.gpu, load)
