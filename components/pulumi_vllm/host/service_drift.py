"""Drift of the running service: units, processes, gateway and firewall against their files. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.host.drift import Difference
from pulumi_vllm.host.mask import mask
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.host.facts import Facts, UnitFact

_STARTED_AT_BOOT: Final = (
    layout.MOUNT_UNIT,
    layout.FIREWALL_UNIT,
    layout.ENGINE_UNIT,
    layout.GATEWAY_UNIT,
    layout.CANARY_TIMER,
)
_RUNNING: Final = (layout.ENGINE_UNIT, layout.GATEWAY_UNIT)
_OPEN: Final = ("UP", "no check")
# vLLM answers the gateway's checks while it computes. After this time without an answer it hangs.
_HUNG_AFTER_S: Final = 60
# The canary runs every minute, and a run that sees a hang takes two.
_ASKED_WITHIN_S: Final = 300
# A reload records the files, then starts another worker within a second.
_RELOADED_WITHIN_S: Final = 30.0
# The reserve that preflight leaves on a machine without GPUs. With less, logs and caches can't be written.
_FULL_BELOW_BYTES: Final = 64 * 2**20

# Without its stamp, the engine is installed again from the lock.
_INSTALL: Final = (
    "`pulumi up` installs it again from its lock and restarts vLLM",
    (f"rm -f {layout.ENGINE_STAMP}",),
)
_ASK: Final = f"systemctl restart {layout.CANARY_TIMER}; systemctl start {layout.CANARY_UNIT}"
_RELOAD_SYSTEMD: Final = "systemctl daemon-reload"
_RESTART_GATEWAY: Final = f"systemctl restart {layout.GATEWAY_UNIT}"
_RELOAD_GATEWAY: Final = f"systemctl reload {layout.GATEWAY_UNIT}"


def serving_digest(digests: Mapping[str, str]) -> str:
    """Return one digest of the files with which vLLM starts, from the sha256 of each by path."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def differences(facts: Facts, *, digest: str, evidence: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Compare the running service with its files, and engine and GPUs with the evidence of the last `up`.

    `digest` is the serving digest of the declared files.
    """
    return (
        *_boot(facts),
        *_systemd(facts),
        *_engine(facts, digest),
        *_gateway_files(facts),
        *_processes(facts),
        *_gateway_state(facts),
        *_canary(facts),
        *_firewall(facts),
        *_forwarding(facts),
        *_disks(facts),
        *_installed(facts),
        *_versions(facts, evidence),
        *_readiness(facts),
    )


def _boot(facts: Facts) -> Iterator[Difference]:
    for unit in _STARTED_AT_BOOT:
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


def _systemd(facts: Facts) -> Iterator[Difference]:
    for unit in layout.UNITS:
        fact = facts.units.get(unit)
        if fact is not None and fact.needs_reload:
            yield Difference(
                f"{unit} in systemd",
                "is older than its files",
                "`pulumi up` lets systemd read them again",
                (_RELOAD_SYSTEMD,),
            )


def _engine(facts: Facts, digest: str) -> Iterator[Difference]:
    fact = facts.units.get(layout.ENGINE_UNIT)
    if fact is None or not _runs(fact):
        return
    if fact.started_with is None:
        observed = "was started with files that are not known"
    elif serving_digest(fact.started_with) != digest:
        names = ", ".join(_other_than_on_disk(fact.started_with, facts))
        observed = f"was started with other files than declared{f': {names}' if names else ''}"
    else:
        return
    yield Difference(
        f"{layout.ENGINE_UNIT} process",
        observed,
        "`pulumi up` drains the gateway and restarts vLLM",
        restarts_engine=True,
    )


def _gateway_files(facts: Facts) -> Iterator[Difference]:
    fact, subject = facts.units.get(layout.GATEWAY_UNIT), f"{layout.GATEWAY_UNIT} process"
    if fact is None or not _runs(fact):
        return
    if fact.started_with is None:
        observed = "was started with files that are not known"
        yield Difference(subject, observed, "`pulumi up` restarts it", (_RESTART_GATEWAY,))
        return
    other = _other_than_on_disk(fact.started_with, facts)
    drop_ins = [path for path in fact.started_with if _is_drop_in(path) and path not in other]
    if drop_ins:
        observed = f"was started with {', '.join(drop_ins)}, which nobody declared"
        yield Difference(
            subject, observed, "`pulumi up` removes it and restarts the gateway", (_RESTART_GATEWAY,)
        )
    if other:
        of_unit = any(path.startswith("/etc/systemd/") or _is_drop_in(path) for path in other)
        yield Difference(
            subject,
            f"runs with another {', '.join(other)} than on disk",
            f"`pulumi up` {'restarts' if of_unit else 'reloads'} the gateway",
            (_RESTART_GATEWAY if of_unit else _RELOAD_GATEWAY,),
        )
    started = facts.gateway.started_at if facts.gateway else 0.0
    if not other and started > fact.recorded_at + _RELOADED_WITHIN_S:
        observed = "has read its files again without its unit, so they are not known"
        yield Difference(subject, observed, "`pulumi up` reloads the gateway", (_RELOAD_GATEWAY,))


def _processes(facts: Facts) -> Iterator[Difference]:
    for unit in _RUNNING:
        fact = facts.units.get(unit)
        if fact is None or not _runs(fact):
            continue
        engine = unit == layout.ENGINE_UNIT
        commands = () if engine else (f"systemctl restart {unit}",)
        remedy = f"`pulumi up` {'drains the gateway and restarts vLLM' if engine else 'restarts it'}"
        if fact.process_user and fact.process_user != fact.user:
            observed = f"is {fact.process_user}, declared {fact.user}"
            yield Difference(f"{unit} user", observed, remedy, commands, engine)
        if not fact.unprivileged:
            observed = "lets the process gain privileges, declared NoNewPrivileges=yes"
            yield Difference(f"{unit} sandbox", observed, remedy, commands, engine)


def _gateway_state(facts: Facts) -> Iterator[Difference]:
    unit, engine = facts.units.get(layout.GATEWAY_UNIT), facts.units.get(layout.ENGINE_UNIT)
    if unit is None or not _runs(unit):
        return
    gateway = facts.gateway
    if gateway is None:
        observed = "does not answer on its admin socket, so its state is not known"
        yield Difference("gateway", observed, "`pulumi up` restarts it", (_RESTART_GATEWAY,))
    elif gateway.status.startswith(("DRAIN", "MAINT")):
        yield Difference(
            "gateway",
            f"answers 503 to every request: its server is {gateway.status}, declared UP",
            "`pulumi up` opens it",
            (f"{layout.DRAIN} --undo",),
        )
    elif (
        not gateway.status.startswith(_OPEN)
        and gateway.for_s >= _HUNG_AFTER_S
        and engine is not None
        and engine.active == "active"
        and (layout.ENGINE_ADDRESS, layout.ENGINE_PORT) in facts.listening
    ):
        yield Difference(
            "vLLM",
            f"listens, but has not answered the gateway's checks for {gateway.for_s} s",
            "`pulumi up` restarts it",
            restarts_engine=True,
        )


def _canary(facts: Facts) -> Iterator[Difference]:
    """What only a question for a token shows. A stopped timer and a closed gateway are differences of their own."""
    engine, gateway = facts.units.get(layout.ENGINE_UNIT), facts.units.get(layout.GATEWAY_UNIT)
    timer, canary = facts.units.get(layout.CANARY_TIMER), facts.canary
    if engine is None or not _runs(engine) or timer is None or timer.active != "active":
        return
    if canary is None or canary.age_s > _ASKED_WITHIN_S:
        since = "ever" if canary is None else f"for {canary.age_s:.0f} s"
        observed = f"has not asked vLLM for a token {since}, declared every minute"
        yield Difference("canary", observed, "`pulumi up` starts it again", (_ASK,))
    elif canary.engine == "refuses":
        observed = f"refuses to answer one token: {canary.observed}"
        yield Difference("vLLM", observed, "`pulumi up` restarts it", restarts_engine=True)
    elif (
        canary.engine == "answers" and canary.gateway != "answers" and gateway is not None and _runs(gateway)
    ):
        limited = canary.gateway.startswith("status 429")
        if limited or facts.gateway is None or facts.gateway.status.startswith(("DRAIN", "MAINT")):
            return
        observed = f"passes no answer of vLLM on: {canary.gateway}"
        yield Difference("gateway", observed, "`pulumi up` restarts it", (_RESTART_GATEWAY,))


def _firewall(facts: Facts) -> Iterator[Difference]:
    unit = facts.units.get(layout.FIREWALL_UNIT)
    if unit is None or unit.active != "active":
        return
    rules, subject = facts.firewall, "firewall"
    if not rules.declared:
        observed = "can't be compared with its rules"
        yield Difference(subject, observed, f"run `nft -c -f {layout.FIREWALL_RULES}` on the host")
    elif not rules.rules:
        opened = _open_ports(facts)
        observed = f"has none of its rules{f', so anybody reaches {opened}' if opened else ''}"
        yield Difference(subject, observed, "`pulumi up` loads them", loads_firewall=True)
    elif rules.rules != rules.declared:
        lines, declared = rules.rules.splitlines(), rules.declared.splitlines()
        added = [f"+ {line.strip()}" for line in lines if line not in declared]
        missing = [f"- {line.strip()}" for line in declared if line not in lines]
        observed = f"has other rules than declared: {'; '.join((*added, *missing)) or 'in another order'}"
        yield Difference(subject, observed, "`pulumi up` loads the declared ones", loads_firewall=True)


def _forwarding(facts: Facts) -> Iterator[Difference]:
    if facts.firewall.forwarding:
        yield Difference(
            "forwarded ports",
            f"pass by our rules: {'; '.join(facts.firewall.forwarding)}",
            "`pulumi up` leaves rules that are not its own; remove them on the host, as in `docker ps` or `nft`",
        )


def _disks(facts: Facts) -> Iterator[Difference]:
    for path, free in sorted(facts.disk_free.items()):
        if free < _FULL_BELOW_BYTES:
            yield Difference(
                f"free space on {path}",
                f"is {free / 2**20:.0f} MiB, and {_FULL_BELOW_BYTES / 2**20:.0f} MiB are needed",
                "`pulumi up` deletes nothing; make room on the host",
            )


def _installed(facts: Facts) -> Iterator[Difference]:
    engine = facts.units.get(layout.ENGINE_UNIT)
    prefix = layout.engine_lock("").removesuffix(".txt")
    locks = {fact.sha256 for path, fact in facts.files.items() if fact and path.startswith(f"{prefix}3.")}
    if engine is not None and _runs(engine) and locks and not locks & set(facts.stamp):
        observed = "was installed from another lock than the one on disk"
        yield Difference("installed vLLM", observed, *_INSTALL, restarts_engine=True)


def _readiness(facts: Facts) -> Iterator[Difference]:
    if facts.readiness is not None and facts.readiness.get("passed") is False:
        why = mask(str(facts.readiness.get("why") or "no reason"))[:200]
        remedy = "`pulumi up` restarts vLLM and runs it again"
        yield Difference("readiness check", f"failed: {why}", remedy, restarts_engine=True)


def _versions(facts: Facts, evidence: Mapping[str, Any]) -> Iterator[Difference]:
    now = facts.versions()
    check = ("`pulumi up` checks the host, drains the gateway and restarts vLLM", ())
    for name, subject, (remedy, commands) in (
        ("vllm", "installed vLLM", _INSTALL),
        ("driver", "NVIDIA driver", check),
        ("gpus", "list of GPUs", check),
    ):
        before = evidence.get(name)
        if before and before != now.get(name):
            observed = f"is {_words(now.get(name))}, and was {_words(before)} at the last `pulumi up`"
            yield Difference(subject, observed, remedy, commands, restarts_engine=True)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{value.count(one)}x {one}" for one in dict.fromkeys(value))
    return str(value or "not found")


def _runs(fact: UnitFact) -> bool:
    return fact.active == "active" and fact.main_pid > 0


def _is_drop_in(path: str) -> bool:
    return path.endswith(".conf") and ".d/" in path


def _other_than_on_disk(started_with: Mapping[str, str], facts: Facts) -> list[str]:
    return sorted(path for path, digest in started_with.items() if digest != _digest_on_disk(path, facts))


def _digest_on_disk(path: str, facts: Facts) -> str:
    fact = facts.files.get(path) or facts.drop_ins.get(path)
    return fact.sha256 if fact else ""


def _open_ports(facts: Facts) -> str:
    loopback = ("127.", "::1")
    ports = {port for address, port in facts.listening if not address.startswith(loopback)}
    return ", ".join(f"port {port}" for port in sorted(ports))
