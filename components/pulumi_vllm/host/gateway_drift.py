"""Drift of the gateway: what HAProxy has read and holds in memory, and whether it is open. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.host.drift import Difference
from pulumi_vllm.host.process_drift import is_drop_in, other_than_on_disk
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.host.facts import Facts

_ENGINE: Final = f"{layout.ENGINE_ADDRESS}:{layout.ENGINE_PORT}"
_OPEN: Final = ("UP", "no check")
# vLLM answers the gateway's checks while it computes. After this time without an answer it hangs.
_HUNG_AFTER_S: Final = 60
# A reload records the files, then starts another worker within a second.
_RELOADED_WITHIN_S: Final = 30.0

RESTART_GATEWAY: Final = f"systemctl restart {layout.GATEWAY_UNIT}"
_RELOAD_GATEWAY: Final = f"systemctl reload {layout.GATEWAY_UNIT}"


def gateway(facts: Facts) -> Iterator[Difference]:
    """Compare the gateway with its files, and its state with open."""
    yield from _files(facts)
    yield from _state(facts)


def _files(facts: Facts) -> Iterator[Difference]:
    fact, subject = facts.units.get(layout.GATEWAY_UNIT), f"{layout.GATEWAY_UNIT} process"
    if fact is None or not fact.runs:
        return
    if fact.started_with is None:
        observed = "was started with files that are not known"
        yield Difference(subject, observed, "`pulumi up` restarts it", (RESTART_GATEWAY,))
        return
    other = other_than_on_disk(fact.started_with, facts)
    drop_ins = [path for path in fact.started_with if is_drop_in(path) and path not in other]
    if drop_ins:
        observed = f"was started with {', '.join(drop_ins)}, which nobody declared"
        yield Difference(
            subject, observed, "`pulumi up` removes it and restarts the gateway", (RESTART_GATEWAY,)
        )
    if other:
        of_unit = any(path.startswith("/etc/systemd/") or is_drop_in(path) for path in other)
        yield Difference(
            subject,
            f"runs with another {', '.join(other)} than on disk",
            f"`pulumi up` {'restarts' if of_unit else 'reloads'} the gateway",
            (RESTART_GATEWAY if of_unit else _RELOAD_GATEWAY,),
        )
    started = facts.gateway.started_at if facts.gateway else 0.0
    if not other and started > fact.recorded_at + _RELOADED_WITHIN_S:
        observed = "has read its files again without its unit, so they are not known"
        yield Difference(subject, observed, "`pulumi up` reloads the gateway", (_RELOAD_GATEWAY,))
    elif not other:
        yield from _memory(facts)


def _memory(facts: Facts) -> Iterator[Difference]:
    """What was changed through the admin socket. A file that was changed is a difference of the process instead."""
    gateway, reload = facts.gateway, ("`pulumi up` reloads the gateway", (_RELOAD_GATEWAY,))
    if gateway is None:
        return
    if gateway.certificate != gateway.certificate_file:
        held, file = gateway.certificate or "no certificate", gateway.certificate_file or "no certificate"
        observed = f"is {held}, and {layout.GATEWAY_CERTIFICATE} holds {file} (SHA-1 fingerprints)"
        yield Difference("certificate in the gateway's memory", observed, *reload)
    for path, changes in gateway.maps.items():
        entries = (*(f"+ {one}" for one in changes.added), *(f"- {one}" for one in changes.missing))
        if entries:
            observed = f"has other entries in the gateway's memory than on disk: {'; '.join(entries)}"
            yield Difference(path, observed, *reload)
    if gateway.server != _ENGINE:
        yield Difference(
            "server in the gateway's memory", f"is {gateway.server}, declared {_ENGINE}", *reload
        )


def _state(facts: Facts) -> Iterator[Difference]:
    unit, engine = facts.units.get(layout.GATEWAY_UNIT), facts.units.get(layout.ENGINE_UNIT)
    if unit is None or not unit.runs:
        return
    gateway = facts.gateway
    if gateway is None:
        observed = "does not answer on its admin socket, so its state is not known"
        yield Difference("gateway", observed, "`pulumi up` restarts it", (RESTART_GATEWAY,))
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
