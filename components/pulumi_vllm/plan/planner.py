"""Turns a stack file into a Plan: what to run, with which arguments, on what memory, at what price."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import (
    engine_rates,
    engine_setup,
    host_paths,
    pricing,
    running_time,
    spot_pricing,
    storage,
)
from pulumi_vllm.plan.errors import DoesNotFit, LintError, PlanError
from pulumi_vllm.plan.evidence import best_match, unmeasured
from pulumi_vllm.plan.launch import Launch
from pulumi_vllm.plan.lint import Finding, lint
from pulumi_vllm.plan.offer_choice import OfferRequest, billing_order, matching, written
from pulumi_vllm.plan.prompt_lengths import Lengths, lengths
from pulumi_vllm.plan.selection import select
from pulumi_vllm.plan.shortfall import shortfall

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pulumi_vllm.plan.catalogue import Catalogue, Engine, Gpu, Measured, Model
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.evidence import Match
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.plan.pricing import Price, Rate
    from pulumi_vllm.plan.selection import Selection

_SECRETS = ("hf_token", "notify_url", "readiness_token", "keys_map", "tls_pem")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a machine exists. `explain` turns it into text and JSON.

    `memory` is None on a CPU. `evidence` is the measured run that says most about this launch, and `rate` is derived
    from it. `lengths` is what was measured by the length of a prompt. `rates_by_engines` are the best
    measured rates of this machine with so many engines.
    """

    deployment: Deployment
    selection: Selection
    arguments: EngineArguments
    environment: Mapping[str, str]
    memory: Budget | None
    findings: tuple[Finding, ...]
    evidence: Match | None
    price: Price
    rate: Rate | None
    usd_per_million_output_tokens: float | None
    lengths: Lengths
    preferred: tuple[str, ...] = ()
    """The GPUs of the stack file in order of preference, if it names several. This plan is of one of them."""
    others: tuple[Plan, ...] = ()
    """The plans of the other ones, in the same order."""
    rates_by_engines: Mapping[int, Rate] = field(default_factory=dict)
    without_rate: tuple[str, ...] = ()
    """Flags of the stack file with which no rate was measured, so that none is given."""
    secrets: tuple[str, ...] = _SECRETS

    @property
    def engines(self) -> int:
        """Engines that share the machine. Arguments and memory are those of each."""
        return self.selection.engines

    @property
    def gpus_of_each(self) -> int:
        """GPUs of each engine."""
        return self.selection.gpus_of_each(self.deployment.machine.count)

    @property
    def sequences_of_each(self) -> int:
        """Requests that each engine serves at the same time."""
        return self.selection.sequences_of_each(self.deployment.sequences)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV caches of all engines hold; 0 on a CPU."""
        return 0 if self.memory is None else self.memory.kv_tokens * self.engines

    @property
    def full_requests(self) -> float:
        """Requests of the full context that run at once on all engines; 0 on a CPU."""
        return 0.0 if self.memory is None else self.memory.full_requests * self.engines

    @property
    def model(self) -> Model:
        """The catalogue's model."""
        return self.selection.model

    @property
    def engine(self) -> Engine:
        """The catalogue's vLLM version."""
        return self.selection.engine

    @property
    def precision(self) -> str:
        """Precision of the weights."""
        return self.selection.precision.name

    @property
    def argv(self) -> tuple[str, ...]:
        """VLLM's command line after the program's name."""
        return self.arguments.command_line()

    @property
    def measured(self) -> str:
        """Whether this launch was measured: yes (exactly these flags), "other flags", or no."""
        if self.evidence is None:
            return "no"
        return "yes" if self.evidence.exact else "other flags"

    @property
    def measured_run(self) -> Measured | None:
        """The run that `evidence` names."""
        return None if self.evidence is None else self.evidence.run

    @property
    def usd_per_hour(self) -> float | None:
        """Price of the machine; None if unknown."""
        return self.price.usd_per_hour

    @property
    def disk_gib(self) -> int:
        """Storage that weights and caches need."""
        return storage.needed_gib(self.selection.precision, self.engine)

    @property
    def needs_nvswitch(self) -> bool:
        """Whether the machine needs NVIDIA's fabric manager."""
        from_count = self.selection.gpu.nvswitch_from
        return from_count is not None and self.deployment.machine.count >= from_count

    @property
    def repository(self) -> str:
        """Repository of the weights."""
        return self.selection.precision.repository

    @property
    def revision(self) -> str:
        """Pinned revision of the weights, 40 hex digits."""
        return self.selection.precision.revision

    @property
    def weights_directory(self) -> str:
        """Directory of the weights on the host."""
        return host_paths.weights_directory(self.repository, self.revision)

    @property
    def cache_directory(self) -> str:
        """Directory of this engine's caches on the host. They outlive the machine."""
        return host_paths.cache_directory(self.engine.version)

    @property
    def served_name(self) -> str:
        """What clients write as `model`."""
        return self.model.name

    @property
    def served_names(self) -> tuple[str, ...]:
        """All names that clients may write as `model`, the one of the catalogue first."""
        return engine_setup.served_names(self.deployment, self.selection)

    @property
    def request_settings(self) -> dict[str, Any]:
        """How vLLM's middleware adapts clients' requests, and their limits."""
        return engine_setup.request_settings(self.deployment, self.selection)


def plan(
    deployment: Deployment,
    offers: Sequence[Offer] | None = None,
    catalogue: Catalogue | None = None,
    paid: float | None = None,
) -> Plan:
    """Decide how to serve a deployment.

    Args:
        deployment: a validated stack file.
        offers: today's offers; None uses the dated price list.
        catalogue: a catalogue other than that of the data files.
        paid: USD per hour of the machine, once the cloud has named it.

    Raises:
        DoesNotFit: memory or storage is too small; it lists lint errors as well.
        LintError: the arguments contain a combination that is known to fail.
    """
    known = catalogues.load() if catalogue is None else catalogue
    if len(deployment.machine.gpus) > 1:
        return _plan_of_several(deployment, offers, known)
    selection = _that_fits(deployment, select(deployment, known))
    arguments = engine_setup.arguments(deployment, selection)
    environment = engine_setup.environment(deployment, selection)
    memory = engine_setup.memory_budget(selection, arguments)
    findings = _lint(deployment, selection, arguments, environment, memory)
    too_small: tuple[str, ...] = ()
    if not deployment.machine.is_own:  # the preflight measures the place on a machine of one's own
        too_small = storage.shortage(deployment.storage_gb, selection.precision, selection.engine)
    if memory is not None and not memory.fits:
        too_small += (shortfall(deployment, selection, arguments, memory, known),)
    failures = tuple(
        f"server.engine.flags: {finding.message} ({finding.evidence})"
        for finding in findings
        if finding.severity == "error" and finding.ignored is None
    )
    if too_small or failures:
        raise (DoesNotFit if too_small else LintError)((*too_small, *failures))
    machine = (selection.gpu.name, deployment.machine.count)
    served = (selection.model.name, selection.precision.name, selection.engine.version)
    evidence = best_match(known.measured, (*served, *machine), arguments, selection.engines)
    run = None if evidence is None else evidence.run
    if (
        evidence is not None
        and evidence.exact
        and memory is not None
        and memory.kv_tokens <= evidence.run.kv_tokens
    ):
        arguments = engine_setup.with_given_cache(arguments, selection.engine, memory)
    price = pricing.machine_price(deployment, selection.gpu, offers, known.prices_from, paid)
    without_rate = () if run is None else unmeasured(run, arguments, deployment.engine.flags)
    streams = deployment.sequences
    if memory is not None:
        load = pricing.MEASURED_INPUT + pricing.MEASURED_OUTPUT
        streams = pricing.at_once(streams, load, memory.kv_tokens, selection.engines)
    rate = None if without_rate else pricing.rate(run, streams)
    findings += (
        *_price_findings(price, selection.gpu, deployment.machine.count),
        *running_time.findings(deployment),
    )
    usd_per_serving_hour = spot_pricing.usd_per_serving_hour(price.usd_per_hour, price.billing, run)
    return Plan(
        deployment=deployment,
        selection=selection,
        arguments=arguments,
        environment=environment,
        memory=memory,
        findings=findings,
        evidence=evidence,
        price=price,
        rate=rate,
        usd_per_million_output_tokens=pricing.per_million(usd_per_serving_hour, rate),
        lengths=lengths(known.measured, run),
        rates_by_engines={}
        if without_rate
        else engine_rates.measured_rates(known.measured, (*served, *machine), deployment.sequences),
        without_rate=without_rate,
    )


def _that_fits(deployment: Deployment, selection: Selection) -> Selection:
    """The selection with one engine over all GPUs, where the several that it chose itself have too little memory."""
    if selection.engines == 1 or deployment.machine.engines is not None:
        return selection
    memory = engine_setup.memory_budget(selection, engine_setup.arguments(deployment, selection))
    return selection if memory is None or memory.fits else replace(selection, engines=1)


def _plan_of_several(deployment: Deployment, offers: Sequence[Offer] | None, known: Catalogue) -> Plan:
    """The plan of the first GPU on offer, or of the first one. Every GPU of the list must be able to serve."""
    machine, plans, errors = deployment.machine, dict[str, Plan](), dict[str, list[str]]()
    refusal: type[PlanError] = LintError
    for gpu in machine.gpus:
        try:
            plans[gpu] = plan(deployment.on(gpu), offers, known)
        except PlanError as error:
            for message in error.errors:
                errors.setdefault(message, []).append(gpu)
            refusal = DoesNotFit if isinstance(error, DoesNotFit) else refusal
    if errors:
        every = list(machine.gpus)
        raise refusal(
            tuple(
                message
                if gpus == every
                else f"{message}, or leave {' and '.join(gpus)} out of server.machine.gpu"
                for message, gpus in errors.items()
            )
        )
    billings = billing_order(machine.billing, machine.fallback)
    wanted = OfferRequest(
        machine.gpus, machine.count, billings, machine.region, max_usd_per_hour=machine.max_usd_per_hour
    )
    best = next(iter(matching(offers or (), wanted)), None)
    taken = machine.gpus[0] if best is None else written(best.gpu, machine.gpus)
    others = tuple(plans[gpu] for gpu in machine.gpus if gpu != taken)
    return replace(plans[taken], preferred=machine.gpus, others=others)


def _price_findings(price: Price, gpu: Gpu, count: int) -> Iterator[Finding]:
    """A price above the ceiling, at which no machine is rented."""
    if price.usd_per_hour is None or price.usd_per_hour <= price.ceiling:
        return
    spot = pricing.list_price(gpu, count, "spot")
    on_spot = ""
    if price.billing != "spot" and spot is not None and spot <= price.ceiling:
        on_spot = f", or set server.machine.billing: spot (${spot:.2f}/h in the price list)"
    yield Finding(
        "price-above-ceiling",
        "warning",
        f"server.machine.max_usd_per_hour: ${price.ceiling:.2f}/h is below ${price.usd_per_hour:.2f}/h, and no machine "
        f"is rented at that price; raise it{on_spot}",
        price.source,
    )


def findings(deployment: Deployment, catalogue: Catalogue | None = None) -> tuple[Finding, ...]:
    """The linter's findings about a stack, whether or not it fits."""
    selection = select(deployment, catalogues.load() if catalogue is None else catalogue)
    selection = _that_fits(deployment, selection)
    arguments = engine_setup.arguments(deployment, selection)
    environment = engine_setup.environment(deployment, selection)
    memory = engine_setup.memory_budget(selection, arguments)
    return _lint(deployment, selection, arguments, environment, memory)


def _lint(
    deployment: Deployment,
    selection: Selection,
    arguments: EngineArguments,
    environment: Mapping[str, str],
    memory: Budget | None,
) -> tuple[Finding, ...]:
    launch = Launch(
        arguments,
        environment,
        selection.model,
        selection.precision,
        selection.engine,
        selection.gpus_of_each(deployment.machine.count),
        # A shortage of memory is refused with the missing GiB and what would fit. It is not a finding.
        memory if memory is not None and memory.fits else None,
        gpu=selection.gpu,
        engines=selection.engines,
    )
    return lint(launch, deployment.engine.ignore)
