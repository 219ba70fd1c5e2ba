"""Drift of the running processes: files they were started with, user, sandbox and limits against their units. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pulumi_vllm.host.drift import Difference
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.host.facts import Facts


def running(facts: Facts, digest: str) -> Iterator[Difference]:
    """Compare vLLM with the serving digest of the declared files, and the processes with their units."""
    yield from _engine(facts, digest)
    yield from _sandbox(facts)


def serving_digest(digests: Mapping[str, str]) -> str:
    """Return one digest of the files with which vLLM starts, from the sha256 of each by path."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def _engine(facts: Facts, digest: str) -> Iterator[Difference]:
    for place in facts.engines:
        yield from _started_with(place.unit, facts, digest)


def _started_with(unit: str, facts: Facts, digest: str) -> Iterator[Difference]:
    fact = facts.units.get(unit)
    if fact is None or not fact.runs:
        return
    if fact.started_with is None:
        observed = "was started with files that are not known"
    elif serving_digest(fact.started_with) != digest:
        undeclared = [path for path in fact.started_with if path in facts.drop_ins]
        names = ", ".join(sorted({*other_than_on_disk(fact.started_with, facts), *undeclared}))
        observed = f"was started with other files than declared{f': {names}' if names else ''}"
    else:
        return
    yield Difference(f"{unit} process", observed, _restarts(facts), restarts_engine=True, engine=unit)


def _restarts(facts: Facts) -> str:
    """What `up` does with an engine that has to start again."""
    if len(facts.engines) > 1:
        return "`pulumi up` drains and restarts this engine"
    return "`pulumi up` drains the gateway and restarts vLLM"


def _sandbox(facts: Facts) -> Iterator[Difference]:
    engines = [place.unit for place in facts.engines]
    for unit in (*engines, layout.GATEWAY_UNIT):
        fact = facts.units.get(unit)
        if fact is None or not fact.runs or fact.process is None:
            continue
        engine = unit in engines
        commands = () if engine else (f"systemctl restart {unit}",)
        remedy = _restarts(facts) if engine else "`pulumi up` restarts it"
        only = unit if engine else ""
        if fact.process.user != fact.user:
            observed = f"is {fact.process.user}, declared {fact.user}"
            yield Difference(f"{unit} user", observed, remedy, commands, engine, engine=only)
        if outside := "; ".join(fact.process.outside_of_sandbox()):
            yield Difference(f"{unit} sandbox", outside, remedy, commands, engine, engine=only)
        if limits := "; ".join(fact.process.other_limits()):
            yield Difference(f"{unit} limits", f"are {limits}", remedy, commands, engine, engine=only)


def other_than_on_disk(started_with: Mapping[str, str], facts: Facts) -> list[str]:
    """Return the files that differ from those with which a unit was started, given by path and digest."""
    return sorted(path for path, digest in started_with.items() if digest != _digest_on_disk(path, facts))


def is_drop_in(path: str) -> bool:
    """Whether a file is a drop-in of a unit."""
    return path.endswith(".conf") and ".d/" in path


def _digest_on_disk(path: str, facts: Facts) -> str:
    fact = facts.files.get(path) or facts.drop_ins.get(path)
    return fact.sha256 if fact else ""
