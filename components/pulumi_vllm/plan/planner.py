"""Deployment → Plan: what to run, with which flags, whether it fits, what it costs, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import flags, host_paths, memory, reasons, storage, summary
from pulumi_vllm.plan import pricing as price
from pulumi_vllm.plan import spot_pricing as price_spot
from pulumi_vllm.plan.engine_arguments import accepts_images, load_of
from pulumi_vllm.plan.errors import DoesNotFit, LintError
from pulumi_vllm.plan.nearest import nearest
from pulumi_vllm.plan.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Model
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.flags import Finding
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.plan.pricing import Rate


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before a machine exists. `budget` and `because` are sentences for a person.

    `measured` is yes (exactly these flags were started), "other flags", or no; `rate` is from what was started.
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
    price_source: str
    storage_usd_per_month: float
    usd_per_million_output_tokens: float | None
    measured: str
    rate: Rate | None
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
        return host_paths.weights_directory(self.repository, self.revision)

    @property
    def cache_directory(self) -> str:
        """Where this engine's caches lie on the host; they survive the machine."""
        return host_paths.cache_directory(self.engine.version)

    @property
    def served_name(self) -> str:
        """What clients write as `model`."""
        return self.model.name

    def summary(self) -> dict[str, Any]:
        """The `plan` output: JSON-able, no secrets."""
        return summary.summary(self)


def plan(
    deployment: Deployment,
    offers: Sequence[Offer] | None = None,
    catalogue: Catalogue | None = None,
    paid: float | None = None,
) -> Plan:
    """Decide, or raise ConfigError, DoesNotFit or LintError, each with every mistake of its kind.

    Args:
        deployment: what a stack file says.
        offers: today's; None takes the dated price list.
        catalogue: another one than that of the data files.
        paid: USD per hour of the machine, where the cloud has named it.
    """
    known = catalogues.load() if catalogue is None else catalogue
    choice = select(deployment, known)
    chosen = {**_flags(deployment, choice), **deployment.engine.flags}
    environment = _environment(deployment, choice)
    budget = _budget(choice, chosen)
    findings = _lint(deployment, choice, chosen, budget)
    wrong = [one for one in findings if one.severity == "error" and one.ignored is None]
    refused = [f"server.engine.flags: {one.sentence} ({one.evidence})" for one in wrong]
    short = list(storage.shortage(deployment.storage_gb, choice.precision, choice.engine))
    if budget is not None and not budget.fits:
        others = nearest(deployment, choice, chosen, known)
        short.append(reasons.shortfall(deployment, choice, budget, others, _causes(deployment, choice)))
    if short or refused:
        raise (DoesNotFit if short else LintError)((*short, *refused))
    argv = flags.argv(chosen)
    machine = (choice.gpu.name, deployment.machine.count)
    measured = known.measurement(
        (choice.model.name, choice.precision.name, choice.engine.version, *machine), argv
    )
    cost = price.per_hour(deployment, choice.gpu, offers, known.prices_from, paid)
    rate = price.rate(measured, deployment.sequences)
    hour = price_spot.serving(cost.usd_per_hour, cost.billing, measured)
    per_million = price.per_million(hour, rate)
    return Plan(
        deployment=deployment,
        model=choice.model,
        engine=choice.engine,
        precision=choice.precision.name,
        argv=argv,
        environment=environment,
        memory=budget,
        budget=reasons.budget(budget),
        disk_gib=storage.needed_gib(choice.precision, choice.engine),
        because=reasons.because(
            deployment,
            choice,
            budget,
            cost,
            findings=findings,
            measured=measured,
            argv=argv,
            tokens=(rate, per_million),
        ),
        findings=findings,
        usd_per_hour=cost.usd_per_hour,
        price_source=cost.source,
        storage_usd_per_month=round(price.storage_per_month(deployment.storage_gb), 2),
        usd_per_million_output_tokens=None if per_million is None else round(per_million, 4),
        measured="no" if measured is None else "yes" if measured.flags == argv else "other flags",
        rate=rate,
        secrets=("hf_token", "readiness_token", "keys_map", "tls_pem"),
        needs_nvswitch=choice.gpu.nvswitch_from is not None
        and deployment.machine.count >= choice.gpu.nvswitch_from,
    )


def findings(deployment: Deployment, catalogue: Catalogue | None = None) -> tuple[Finding, ...]:
    """What the lint says about a stack's flags, whether or not it fits."""
    choice = select(deployment, catalogues.load() if catalogue is None else catalogue)
    chosen = {**_flags(deployment, choice), **deployment.engine.flags}
    return _lint(deployment, choice, chosen, _budget(choice, chosen))


def _lint(
    deployment: Deployment, choice: Selection, chosen: Mapping[str, Any], budget: Budget | None
) -> tuple[Finding, ...]:
    launch = flags.Launch(
        chosen,
        _environment(deployment, choice),
        choice.model,
        choice.precision,
        choice.engine,
        deployment.machine.count,
        # What does not fit is refused with the missing GiB and the nearest thing that would, not as a finding.
        budget if budget is not None and budget.fits else None,
    )
    return flags.lint(launch, deployment.engine.ignore)


def _flags(deployment: Deployment, choice: Selection) -> dict[str, Any]:
    """Every flag that we decide, in the order of the command line."""
    chosen: dict[str, Any] = {
        "model": host_paths.weights_directory(choice.precision.repository, choice.precision.revision),
        "served-model-name": choice.model.name,
        "host": host_paths.ENGINE_ADDRESS,
        "port": host_paths.ENGINE_PORT,
        **choice.model.flags,
        **choice.engine.flags,
        **choice.expert_flags,
        "max-model-len": deployment.context,
        "max-num-seqs": deployment.sequences,
    }
    if deployment.machine.count > 1:
        chosen["tensor-parallel-size"] = deployment.machine.count
        chosen.update(choice.engine.tensor_parallel["flags"])
    own = deployment.engine.flags
    if accepts_images(choice.model.dimensions, own) and own.get("enable-chunked-prefill") is not False:
        chosen.update(choice.vision_flags)
    budget = _budget(choice, {**chosen, **own})
    # Several GPUs and images take more beyond vLLM's limit.
    if budget is not None and budget.safe_utilization:
        chosen["gpu-memory-utilization"] = min(chosen["gpu-memory-utilization"], budget.safe_utilization)
    return chosen


def _causes(deployment: Deployment, choice: Selection) -> tuple[str, ...]:
    """The stack file's own flags without which it would fit here, and no more of them than it takes."""
    own = deployment.engine.flags

    def fits(without: tuple[str, ...]) -> bool:
        kept = {name: value for name, value in own.items() if name not in without}
        engine = deployment.engine.model_copy(update={"flags": kept})
        budget = _budget(choice, {**_flags(deployment.model_copy(update={"engine": engine}), choice), **kept})
        return budget is not None and budget.fits

    causes = tuple(own)
    if not fits(causes):
        return ()
    for name in own:
        fewer = tuple(one for one in causes if one != name)
        causes = fewer if fits(fewer) else causes
    return causes


def _environment(deployment: Deployment, choice: Selection) -> dict[str, str]:
    caches = host_paths.cache_directory(choice.engine.version)
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


def _budget(choice: Selection, chosen: Mapping[str, Any]) -> Budget | None:
    if choice.engine.runs_on == "cpu":
        return None
    load = load_of(chosen, choice.engine, choice.model.maximum_context)
    return memory.budget(choice.model.dimensions, choice.precision, choice.engine, choice.gpu, load)
