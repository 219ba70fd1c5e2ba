"""Connections to the machines of one process: one per machine, and one probe for all who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import HostError, Unreachable
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.probe import UNITS, Wanted
from pulumi_vllm.host.ssh import Address, Host, connect

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECT_S = 10.0
# Long enough for the resources of one refresh, short enough for nobody to be shown an old truth.
_FRESH_S = 10.0
# Those who queued behind a failed attempt share its answer; a later one tries anew.
_SHARED_FAILURE_S = 2.0


@dataclass(slots=True)
class _Machine:
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    host: Host | None = None
    failure: HostError | None = None
    failed_at: float = 0.0
    wanted: Wanted = field(default_factory=Wanted)
    facts: Facts | None = None
    facts_at: float = 0.0
    changes: int = 0


class Connections:
    """Shared by all resources of a process; belongs to one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._machines: dict[tuple[Address, str | None], _Machine] = {}

    async def get(self, address: Address, private_key_pem: str, host_key: str | None) -> Host:
        """The connection to a machine, made on first use and again when it was lost.

        Raises:
            HostError: it is unreachable, refuses our key, or shows another host key.
        """
        machine = self._machines.setdefault((address, host_key), _Machine())
        queued_at = self._clock()
        async with machine.connecting:
            if machine.host is not None and not machine.host.closed:
                return machine.host
            recent = self._clock() - machine.failed_at < _SHARED_FAILURE_S or machine.failed_at >= queued_at
            if machine.failure is not None and recent:
                raise type(machine.failure)(str(machine.failure))
            machine.facts = None
            try:
                if machine.host is None:
                    machine.host = await connect(address, private_key_pem, host_key, _CONNECT_S)
                else:
                    await machine.host.open(_CONNECT_S)
            except HostError as error:
                machine.failure, machine.failed_at = error, self._clock()
                raise
            machine.failure = None
            return machine.host

    async def facts(
        self,
        host: Host,
        *,
        paths: tuple[str, ...] = (),
        units: tuple[str, ...] = (),
        weights: str | None = None,
    ) -> Facts:
        """What the machine looks like now; those who ask at the same time share one probe.

        Raises:
            HostError: the probe failed.
        """
        machine = self._of(host)
        async with machine.probing:
            wanted = _joined(machine.wanted, paths, units, weights)
            if machine.facts is None or wanted != machine.wanted or not self._fresh(machine):
                machine.wanted, changes = wanted, machine.changes
                found = await self._probe(host, wanted)
                machine.facts_at = self._clock()
                machine.facts = found if machine.changes == changes else None
            else:
                found = machine.facts
        return found.seen_by(paths, weights)

    def stale(self, host: Host) -> None:
        """Something was changed on the machine: the next who asks gets a new probe."""
        machine = self._of(host)
        machine.facts = None
        machine.changes += 1

    async def forget(self, host: str) -> None:
        """Hang up on a machine that is rebooting or gone, so that the next call connects anew."""
        for (address, _), machine in self._machines.items():
            if address.host == host:
                machine.facts, machine.failure = None, None
                if machine.host is not None:
                    await machine.host.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        for machine in self._machines.values():
            if machine.host is not None:
                await machine.host.close()

    def _of(self, host: Host) -> _Machine:
        for machine in self._machines.values():
            if machine.host is host:
                return machine
        return self._machines.setdefault((host.address, host.host_key), _Machine(host=host))

    def _fresh(self, machine: _Machine) -> bool:
        return self._clock() - machine.facts_at < _FRESH_S

    async def _probe(self, host: Host, wanted: Wanted) -> Facts:
        answer = await host.probe(wanted)
        try:
            return Facts.parse(answer)
        except (ValueError, KeyError, TypeError):
            raise HostError(f"{host.address}: the probe's answer can't be read") from None


def _joined(known: Wanted, paths: tuple[str, ...], units: tuple[str, ...], weights: str | None) -> Wanted:
    """Everything anybody asked for so far, so that a shared probe serves the next one too."""
    return Wanted(
        paths=tuple(sorted({*known.paths, *(path for path in paths if not path.startswith(known.folders))})),
        units=(*UNITS, *sorted({*known.units, *units} - set(UNITS))),
        folders=known.folders,
        weights=tuple(sorted({*known.weights, *((weights,) if weights else ())})),
    )


__all__ = ["Connections", "Unreachable"]
