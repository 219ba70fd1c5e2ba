"""Drift of the gateway: what HAProxy has read and holds in memory, and whether it is open. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.host.drift import Difference
from pulumi_vllm.host.process_drift import is_drop_in, other_than_on_disk
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.host.facts import Facts, ServerFact
    from pulumi_vllm.render.engine_places import EnginePlace

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
    declared = {place.server: f"{layout.ENGINE_ADDRESS}:{place.port}" for place in facts.engines}
    for server in gateway.servers:
        if server.address != declared.get(server.name, server.address):
            several = f" {server.name}" if len(gateway.servers) > 1 else ""
            observed = f"is {server.address}, declared {declared[server.name]}"
            yield Difference(f"server{several} in the gateway's memory", observed, *reload)


def _state(facts: Facts) -> Iterator[Difference]:
    unit = facts.units.get(layout.GATEWAY_UNIT)
    if unit is None or not unit.runs:
        return
    if facts.gateway is None:
        observed = "does not answer on its admin socket, so its state is not known"
        yield Difference("gateway", observed, "`pulumi up` restarts it", (RESTART_GATEWAY,))
        return
    closed = [server for server in facts.gateway.servers if server.closed]
    if closed:
        several = len(facts.gateway.servers) > 1
        which = ", ".join(f"{one.name} is {one.status}" for one in closed)
        open_ones = len(closed) < len(facts.gateway.servers)
        observed = "sends no request to some engines" if open_ones else "answers 503 to every request"
        state = which if several else f"its server is {closed[0].status}"
        yield Difference(
            "gateway",
            f"{observed}: {state}, declared UP",
            "`pulumi up` opens it",
            (f"{layout.DRAIN} --undo",),
        )
    places = {place.server: place for place in facts.engines}
    for server in facts.gateway.servers:
        if server.name in places and not server.closed:
            yield from _hung(places[server.name], server, facts)


def _hung(place: EnginePlace, server: ServerFact, facts: Facts) -> Iterator[Difference]:
    """An engine that listens and does not answer the gateway."""
    if (
        not server.status.startswith(_OPEN)
        and server.for_s >= _HUNG_AFTER_S
        and facts.units[place.unit].active == "active"
        and (layout.ENGINE_ADDRESS, place.port) in facts.listening
    ):
        yield Difference(
            "vLLM" if len(facts.engines) == 1 else place.unit,
            f"listens, but has not answered the gateway's checks for {server.for_s} s",
            "`pulumi up` restarts it",
            restarts_engine=True,
            engine=place.unit,
        )
