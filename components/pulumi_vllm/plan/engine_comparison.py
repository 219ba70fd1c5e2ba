"""What another vLLM version changes for a stack: arguments, memory, evidence and price."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import pricing, spot_pricing, vllm_parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.plan.lint import Finding
    from pulumi_vllm.plan.planner import Plan
    from pulumi_vllm.plan.pricing import Rate

_WITHOUT_DECIMALS = 10
_MOST_NAMES = 8
_NUMBER = re.compile(r"[\d,.]*\d")
_MEASURED = {"yes": "with these flags", "other flags": "with other flags", "no": "never"}
_OF_LOAD = ("output_tokens_per_s", "usd_per_million_output_tokens")
"""Figures that hold for a load."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A value before and after, as text; None where there is none."""

    name: str
    before: str | None
    after: str | None

    def sentence(self) -> str:
        """The change on one line."""
        if self.before is None:
            return f"new: {self.name} {self.after}".rstrip()
        if self.after is None:
            return f"gone: {self.name} {self.before}".rstrip()
        return f"changed: {self.name} {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Two plans of one stack file, which differ in the version of vLLM."""

    before: Plan
    after: Plan

    @property
    def machine(self) -> str:
        """What both are planned for."""
        return self.after.deployment.machine.named

    @property
    def changes_version(self) -> bool:
        """Whether the stack has another version so far."""
        return self.before.engine.version != self.after.engine.version

    @property
    def flags(self) -> tuple[Changed, ...]:
        """How the command line changes."""
        return _changes(_words(self.before.arguments.flags), _words(self.after.arguments.flags), "--")

    @property
    def environment(self) -> tuple[Changed, ...]:
        """How the environment changes, but for the caches' folder, which has the version in its name."""
        before, after = (
            {name: value for name, value in one.environment.items() if one.cache_directory not in value}
            for one in (self.before, self.after)
        )
        return _changes(before, after, "")

    @property
    def arguments_gone(self) -> tuple[str, ...]:
        """Arguments of vLLM that the new version no longer has."""
        return _missing(self.before.engine.version, self.after.engine.version)

    @property
    def arguments_new(self) -> tuple[str, ...]:
        """Arguments of vLLM that only the new version has."""
        return _missing(self.after.engine.version, self.before.engine.version)

    @property
    def evidence_lost(self) -> bool:
        """Whether exactly these flags were measured before, and are not after."""
        return self.before.measured == "yes" != self.after.measured

    @property
    def new_findings(self) -> tuple[str, ...]:
        """What the linter finds only after."""
        known = {_words_of(one) for one in self.before.findings}
        return tuple(
            f"{one.severity} ({one.rule}): {one.message}"
            for one in self.after.findings
            if _words_of(one) not in known
        )

    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """KV tokens, share of the GPU's memory that vLLM may use, rate and price, before and after; None if unknown."""
        before, after = (self._rate(one) for one in (self.before, self.after))
        return {
            "kv_cache_tokens": (_tokens(self.before), _tokens(self.after)),
            "gpu_memory_utilization": (self.before.arguments.utilization, self.after.arguments.utilization),
            "output_tokens_per_s": (_tokens_per_s(before), _tokens_per_s(after)),
            "usd_per_million_output_tokens": (_price(self.before, before), _price(self.after, after)),
        }

    @property
    def streams(self) -> int | None:
        """The load for which rates are compared: the most streams that were measured with both versions."""
        return min(
            (one.rate.streams for one in (self.before, self.after) if one.rate is not None), default=None
        )

    @property
    def load(self) -> str | None:
        """What the compared rates and prices are for, and whether one of them was not measured at just that load."""
        rates = [found for one in (self.before, self.after) if (found := self._rate(one)) is not None]
        if not rates:
            return None
        interpolated = ", interpolated" if any(len(one.levels) > 1 for one in rates) else ""
        return f"{rates[0].load}{interpolated}"

    def _other_loads(self) -> Iterator[str]:
        """The rates for the stack's own load, where they were not measured with both versions."""
        for one in (self.before, self.after):
            if one.rate is not None and one.rate.streams != self.streams:
                usd = _price(one, one.rate)
                price = "" if usd is None else f", ${usd:.3f} per million"
                yield f"With vLLM {one.engine.version} only: {one.rate.sentence()}{price}"

    def _rate(self, one: Plan) -> Rate | None:
        if self.streams is None or one.without_rate:
            return None
        return pricing.rate(one.measured_run, self.streams)

    def sentences(self) -> Iterator[str]:
        """The whole comparison, one fact per line."""
        old, new = self.before.engine, self.after.engine
        if not self.changes_version:
            yield f"The stack has vLLM {old.version} already."
            return
        yield f"vLLM {old.version} -> {new.version}"
        if self.before.engines != self.after.engines:
            yield f"changed: engines on the machine {self.before.engines} -> {self.after.engines}"
        for one in (*self.flags, *self.environment):
            yield one.sentence()
        for version, names in ((old.version, self.arguments_gone), (new.version, self.arguments_new)):
            if names:
                yield f"Arguments that only vLLM {version} has: {_listed(names)}"
        for name, (before, after) in self.figures().items():
            line = f"{name}: {_written(before)} -> {_written(after)}{_percent(before, after)}"
            yield f"{line}{f', {self.load}' if name in _OF_LOAD and self.load else ''}"
        yield from self._other_loads()
        yield f"measured: {_MEASURED[self.before.measured]} -> {_MEASURED[self.after.measured]}"
        if self.evidence_lost:
            yield f"Evidence is lost: these flags were measured with vLLM {old.version}, and not with {new.version}."
        yield from self.new_findings
        if old.driver_floor != new.driver_floor:
            yield f"least driver: {old.driver_floor} -> {new.driver_floor}"
        every = f"all {self.after.engines} engines" if self.after.engines > 1 else "vLLM"
        yield (
            "`pulumi up` installs the new engine while the old one serves, drains the gateway and restarts "
            f"{every}. The start is a cold one, unless this version has filled {self.after.cache_directory} before."
        )

    def summary(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "machine": self.machine,
            "from": self.before.engine.version,
            "to": self.after.engine.version,
            "engines": {"before": self.before.engines, "after": self.after.engines},
            "flags": [_as_json(one) for one in self.flags],
            "environment": [_as_json(one) for one in self.environment],
            "arguments_gone": list(self.arguments_gone),
            "arguments_new": list(self.arguments_new),
            **{name: {"before": before, "after": after} for name, (before, after) in self.figures().items()},
            "load": self.load,
            "other_loads": list(self._other_loads()),
            "measured": {"before": self.before.measured, "after": self.after.measured},
            "evidence_lost": self.evidence_lost,
            "new_findings": list(self.new_findings),
        }


def _as_json(one: Changed) -> dict[str, str | None]:
    return {"name": one.name, "before": one.before, "after": one.after}


def _words_of(finding: Finding) -> tuple[str, str]:
    """A finding without its numbers, which change with the memory."""
    return finding.rule, _NUMBER.sub("", finding.message)


def _changes(before: Mapping[str, str], after: Mapping[str, str], prefix: str) -> tuple[Changed, ...]:
    return tuple(
        Changed(f"{prefix}{name}", before.get(name), after.get(name))
        for name in (*before, *(one for one in after if one not in before))
        if before.get(name) != after.get(name)
    )


def _words(flags: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if value is True else str(value) for name, value in flags.items()}


def _missing(version: str, other: str) -> tuple[str, ...]:
    """Arguments of a version that the other lacks. Nothing is known of a version without a recorded parser."""
    here, there = vllm_parser.accepted(version), vllm_parser.accepted(other)
    return tuple(sorted(here.keys() - there.keys())) if here and there else ()


def _tokens(one: Plan) -> int | None:
    return None if one.memory is None else one.kv_tokens


def _tokens_per_s(found: Rate | None) -> float | None:
    return None if found is None else found.tokens_per_s


def _price(one: Plan, found: Rate | None) -> float | None:
    usd = spot_pricing.usd_per_serving_hour(one.price.usd_per_hour, one.price.billing, one.measured_run)
    return pricing.per_million(usd, found)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} (--json names them)"


def _written(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= _WITHOUT_DECIMALS else f"{value:.3f}"


def _percent(before: float | None, after: float | None) -> str:
    return f" ({after / before - 1:+.1%})" if before and after and before != after else ""
