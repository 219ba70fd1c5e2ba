"""Drift of the running service: units, processes, gateway and firewall against their files. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.host import access_drift, engine_drift, gateway_drift, process_drift
from pulumi_vllm.host.drift import Difference
from pulumi_vllm.host.gateway_drift import RESTART_GATEWAY
from pulumi_vllm.host.mask import mask
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.host.facts import Facts
    from pulumi_vllm.render.engine_places import EnginePlace

_STARTED_AT_BOOT: Final = (
    layout.MOUNT_UNIT,
    layout.FIREWALL_UNIT,
    layout.GATEWAY_UNIT,
    layout.CANARY_TIMER,
    layout.LIFETIME_TIMER,
)
# The canary runs every 30 s, and a run that observes a hang takes two minutes.
_ASKED_WITHIN_S: Final = 300
# As long as whoever looks once a day needs.
_ENDED_WITHIN_S: Final = 24 * 3600
# A clock that NTP keeps is right within a second, so a minute is a fault. TLS fails much later: our certificates hold
# from one hour before they were made, and signed links of model hubs for 15 minutes to an hour.
_CLOCK_WITHIN_S: Final = 60
# The reserve that preflight leaves on a machine without GPUs. With less, logs and caches can't be written.
_FULL_BELOW_BYTES: Final = 64 * 2**20

_ASK: Final = f"systemctl restart {layout.CANARY_TIMER}; systemctl start {layout.CANARY_UNIT}"
_RELOAD_SYSTEMD: Final = "systemctl daemon-reload"


def differences(
    facts: Facts, *, digest: str, evidence: Mapping[str, Any], access: Mapping[str, str]
) -> tuple[Difference, ...]:
    """Compare the running service with its files, and the host with what was observed at the last `up`.

    `digest` is the serving digest of the declared files. `evidence` names engine and GPUs of the last `up`, and
    `access` what decided about access then.
    """
    return (
        *_boot(facts),
        *_undeclared_engines(facts),
        *_systemd(facts),
        *process_drift.running(facts, digest),
        *gateway_drift.gateway(facts),
        *_canary(facts),
        *_firewall(facts),
        *_disks(facts),
        *_folders(facts),
        *_clock(facts),
        *access_drift.access(facts, access),
        *access_drift.forwarding(facts, access),
        *engine_drift.installed(facts, evidence),
        *_readiness(facts),
    )


def not_observed(facts: Facts) -> str | None:
    """Say what was not observed of a host that answers. None if everything was."""
    if not _has_firewall(facts):
        return None
    rules = facts.firewall
    if not rules.listed:
        return "the rules of the firewall can't be listed; run `nft list ruleset` on the host"
    if rules.rules and not rules.apart:
        return (
            "the firewall was not compared with its rules, because the host permits no network of their own to print "
            "them in; allow `unshare --net true` there, or set `unreachable: warn` in the stack file to be warned only"
        )
    return None


def canary_restarts(facts: Facts) -> str | None:
    """Say how often the canary ended vLLM in the last day. The host's record keeps older times."""
    found = [ended for place in facts.engines if (ended := _restarts_of(place, facts))]
    return "; ".join(found) or None


def _restarts_of(place: EnginePlace, facts: Facts) -> str | None:
    canary = facts.canaries.get(place.canary_result)
    last_day = [one for one in (canary.restarts if canary else ()) if one.age_s < _ENDED_WITHIN_S]
    if not last_day:
        return None
    times = f"{len(last_day)} times" if len(last_day) > 1 else "once"
    engine = "vLLM" if len(facts.engines) == 1 else place.unit
    return (
        f"the canary ended {engine} {times} in the last 24 hours, last at {last_day[-1].time}: "
        f"{last_day[-1].reason}. {place.canary_result} on the host has the earlier times too"
    )


def _boot(facts: Facts) -> Iterator[Difference]:
    for unit in (*_STARTED_AT_BOOT, *(place.unit for place in facts.engines)):
        fact = facts.units.get(unit)
        if fact is None or fact.active == "missing" or fact.enabled == "enabled":
            continue
        masked = fact.enabled.startswith("masked")
        unmask = (f"systemctl unmask {unit}; systemctl unmask --runtime {unit}",) if masked else ()
        yield Difference(
            f"{unit} at boot",
            f"is {fact.enabled or 'unknown'}, declared enabled",
            "`pulumi up` enables it",
            (*unmask, f"systemctl enable -q {unit}"),
        )


def _undeclared_engines(facts: Facts) -> Iterator[Difference]:
    """Engines beside the declared ones: they take memory, and get no requests."""
    for unit in facts.undeclared_engines:
        yield Difference(
            unit,
            "runs or starts at boot, and is not declared",
            "`pulumi up` stops and disables it",
            (end_engine(unit),),
        )


def end_engine(unit: str) -> str:
    """The commands that end an engine that is not declared.

    Without its environment file a unit fails when it stops, and then the host restores the previous files.
    """
    return "; ".join((
        f'file=$(systemctl show -P EnvironmentFiles "{unit}" | cut -d " " -f 1)',
        'if test -z "$file" || test -e "$file"; then file=; else install -m 0644 /dev/null "$file"; fi',
        f'systemctl stop "{unit}" || true',
        'test -z "$file" || rm -f "$file"',
        f'rm -f "{layout.UNITS_DIRECTORY}/multi-user.target.wants/{unit}" "{layout.STARTS}/{unit}.json"',
        f'systemctl reset-failed "{unit}" 2>/dev/null || true',
    ))  # fmt: skip


def _systemd(facts: Facts) -> Iterator[Difference]:
    for unit in dict.fromkeys((*layout.UNITS, *(place.unit for place in facts.engines))):
        fact = facts.units.get(unit)
        if fact is not None and fact.needs_reload:
            yield Difference(
                f"{unit} in systemd",
                "is older than its files",
                "`pulumi up` lets systemd read them again",
                (_RELOAD_SYSTEMD,),
            )


def _canary(facts: Facts) -> Iterator[Difference]:
    """What only a question for a token shows. A stopped timer and a closed gateway are differences of their own."""
    timer = facts.units.get(layout.CANARY_TIMER)
    for place in facts.engines:
        if facts.units[place.unit].runs and timer is not None and timer.active == "active":
            yield from _asked(place, facts)


def _asked(place: EnginePlace, facts: Facts) -> Iterator[Difference]:
    """What the canary saw of one engine, and of the gateway after it."""
    gateway, canary = facts.units.get(layout.GATEWAY_UNIT), facts.canaries.get(place.canary_result)
    engine = "vLLM" if len(facts.engines) == 1 else place.unit
    if canary is None or canary.age_s > _ASKED_WITHIN_S:
        since = "ever" if canary is None else f"for {canary.age_s:.0f} s"
        observed = f"has not asked {engine} for a token {since}, declared every 30 s"
        yield Difference("canary", observed, "`pulumi up` starts it again", (_ASK,))
    elif canary.engine in {"refuses", "fails"}:
        observed = f"{canary.engine} to answer one token: {canary.observed}"
        yield Difference(engine, observed, "`pulumi up` restarts it", restarts_engine=True, engine=place.unit)
    elif canary.engine == "answers" and canary.gateway != "answers" and gateway is not None and gateway.runs:
        limited = canary.gateway.startswith("status 429")
        if limited or facts.gateway is None or any(one.closed for one in facts.gateway.servers):
            return
        observed = f"passes no answer of vLLM on: {canary.gateway}"
        yield Difference("gateway", observed, "`pulumi up` restarts it", (RESTART_GATEWAY,))


def _firewall(facts: Facts) -> Iterator[Difference]:
    rules, subject = facts.firewall, "firewall"
    if not _has_firewall(facts) or not rules.listed:
        return
    if rules.apart and not rules.declared:
        observed = "can't be compared with its rules"
        yield Difference(subject, observed, f"run `nft -c -f {layout.FIREWALL_RULES}` on the host")
    elif not rules.rules:
        opened = _open_ports(facts)
        observed = f"has none of its rules{f', so anybody reaches {opened}' if opened else ''}"
        yield Difference(subject, observed, "`pulumi up` loads them", loads_firewall=True)
    elif rules.apart and rules.rules != rules.declared:
        lines, declared = rules.rules.splitlines(), rules.declared.splitlines()
        added = [f"+ {line.strip()}" for line in lines if line not in declared]
        missing = [f"- {line.strip()}" for line in declared if line not in lines]
        observed = f"has other rules than declared: {'; '.join((*added, *missing)) or 'in another order'}"
        yield Difference(subject, observed, "`pulumi up` loads the declared ones", loads_firewall=True)


def _has_firewall(facts: Facts) -> bool:
    unit = facts.units.get(layout.FIREWALL_UNIT)
    return unit is not None and unit.active == "active"


def _clock(facts: Facts) -> Iterator[Difference]:
    if abs(facts.skew_s) > _CLOCK_WITHIN_S:
        direction = "ahead of" if facts.skew_s > 0 else "behind"
        loose = ", and nothing synchronises it" if facts.synchronised is False else ""
        yield Difference(
            "clock",
            f"is {abs(facts.skew_s):.0f} s {direction} that of this computer{loose}, and may differ by "
            f"{_CLOCK_WITHIN_S} s",
            "`pulumi up` sets no clock under a running engine; run `timedatectl set-ntp true` on the host, or correct "
            "this computer's clock",
        )


def _disks(facts: Facts) -> Iterator[Difference]:
    for path, free in sorted(facts.disk_free.items()):
        if free < _FULL_BELOW_BYTES:
            yield Difference(
                f"free space on {path}",
                f"is {free / 2**20:.0f} MiB, and {_FULL_BELOW_BYTES / 2**20:.0f} MiB are needed",
                "`pulumi up` deletes nothing; make room on the host",
            )


def _folders(facts: Facts) -> Iterator[Difference]:
    for path, observed in sorted(facts.folders.items()):
        declared = layout.FOLDERS.get(path)
        if declared is not None and observed != declared:
            mode, owner = declared.split()
            yield Difference(
                f"folder {path}",
                f"is {observed}, declared {declared}",
                "`pulumi up` repairs this",
                (f"chown {owner} {path}", f"chmod {mode} {path}"),
            )


def _readiness(facts: Facts) -> Iterator[Difference]:
    if facts.readiness is not None and facts.readiness.get("passed") is False:
        why = mask(str(facts.readiness.get("why") or "no reason"))[:200]
        remedy = "`pulumi up` restarts vLLM and runs it again"
        yield Difference("readiness check", f"failed: {why}", remedy, restarts_engine=True)


def _open_ports(facts: Facts) -> str:
    loopback = ("127.", "::1")
    ports = {port for address, port in facts.listening if not address.startswith(loopback)}
    return ", ".join(f"port {port}" for port in sorted(ports))
