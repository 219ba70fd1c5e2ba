"""The SSH connections of one process: one per host, and one probe for all resources that ask at the same time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.probe_request import ProbeRequest
from pulumi_vllm.host.ssh import Address, Host, connect

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECT_S = 10.0
# Long enough for the resources of one refresh, short enough to show no outdated facts.
_FACTS_FRESH_FOR_S = 10.0
# Callers that waited for a failed attempt share its error. Later callers try again.
_FAILURE_SHARED_FOR_S = 2.0


@dataclass(slots=True)
class _Entry:
    """What the pool keeps of one host."""

    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    host: Host | None = None
    failure: HostError | None = None
    failed_at: float = 0.0
    request: ProbeRequest = field(default_factory=ProbeRequest)
    facts: Facts | None = None
    facts_at: float = 0.0
    changes: int = 0


class ConnectionPool:
    """Connections shared by all resources of a process. A pool belongs to one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[tuple[Address, str | None], _Entry] = {}

    async def get(self, address: Address, private_key_pem: str, host_key: str | None) -> Host:
        """Return the connection to a host. Connect on first use, and again after the connection was lost.

        Raises:
            HostError: the host is unreachable, refuses our key, or shows another host key.
        """
        entry = self._entries.setdefault((address, host_key), _Entry())
        queued_at = self._clock()
        async with entry.connecting:
            if entry.host is not None and not entry.host.closed:
                return entry.host
            recent = self._clock() - entry.failed_at < _FAILURE_SHARED_FOR_S or entry.failed_at >= queued_at
            if entry.failure is not None and recent:
                raise type(entry.failure)(str(entry.failure))
            entry.facts = None
            try:
                if entry.host is None:
                    entry.host = await connect(address, private_key_pem, host_key, _CONNECT_S)
                else:
                    await entry.host.open(_CONNECT_S)
            except HostError as error:
                entry.failure, entry.failed_at = error, self._clock()
                raise
            entry.failure = None
            return entry.host

    async def facts(
        self,
        host: Host,
        *,
        paths: tuple[str, ...] = (),
        units: tuple[str, ...] = (),
        weights: str | None = None,
    ) -> Facts:
        """Return the state of a host. Callers that ask at the same time share one probe.

        Raises:
            HostError: the probe failed.
        """
        entry = self._entry_of(host)
        async with entry.probing:
            request = entry.request.including(paths, units, weights)
            if entry.facts is not None and request == entry.request and self._is_fresh(entry):
                return entry.facts
            entry.request, changes = request, entry.changes
            facts = await self._probe(host, request)
            entry.facts_at = self._clock()
            entry.facts = facts if entry.changes == changes else None
            return facts

    def mark_changed(self, host: Host) -> None:
        """Drop the facts of a host that was changed, so that the next caller gets a new probe."""
        entry = self._entry_of(host)
        entry.facts = None
        entry.changes += 1

    async def forget(self, host: str) -> None:
        """Close the connections to a host that reboots or is gone, so that the next call connects again."""
        for (address, _), entry in self._entries.items():
            if address.host == host:
                entry.facts, entry.failure = None, None
                if entry.host is not None:
                    await entry.host.close()

    async def close(self) -> None:
        """Close all connections."""
        for entry in self._entries.values():
            if entry.host is not None:
                await entry.host.close()

    def _entry_of(self, host: Host) -> _Entry:
        for entry in self._entries.values():
            if entry.host is host:
                return entry
        return self._entries.setdefault((host.address, host.host_key), _Entry(host=host))

    def _is_fresh(self, entry: _Entry) -> bool:
        return self._clock() - entry.facts_at < _FACTS_FRESH_FOR_S

    async def _probe(self, host: Host, request: ProbeRequest) -> Facts:
        output = await host.probe(request)
        try:
            return Facts.parse(output)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HostError(f"{host.address}: the probe's output can't be read") from None
