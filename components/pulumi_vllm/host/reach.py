"""Waiting for a young or rebooting machine: first TCP, then a login that can really become root."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable, WaitCancelled
from pulumi_vllm.host.ssh import Address, Host, connect

T = TypeVar("T")
Progress = Callable[[str], Awaitable[None]]

_PAUSES_S = (0.5, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0)
_CONNECT_S = 10.0


async def wait_tcp(
    host: str, port: int, timeout_s: float, cancelled: asyncio.Event, progress: Progress | None = None
) -> None:
    """Until something accepts connections.

    Raises:
        Unreachable: nothing did in time.
        WaitCancelled: the person gave up.
    """

    async def attempt() -> bool:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    waiting = _Waiting(f"{host} port {port}", timeout_s, cancelled, progress)
    while True:
        try:
            await waiting.race(attempt())
        except (OSError, TimeoutError) as error:
            await waiting.pause(Unreachable(f"{host} port {port}: nothing answers", str(error)))
        else:
            return


async def wait_ssh(
    host: str,
    port: int,
    users: Sequence[str],
    private_key_pem: str,
    *,
    host_key: str | None = None,
    timeout_s: float = 1200.0,
    cancelled: asyncio.Event,
    progress: Progress | None = None,
) -> Host:
    """Until one of the users can log in and become root. Refused keys are tried again: they are injected late.

    Raises:
        HostKeyChanged: at once, when another key than the pinned one is shown.
        HostError: what was last seen, when the time is over.
        WaitCancelled: the person gave up.
    """
    waiting = _Waiting(f"SSH of {host}", timeout_s, cancelled, progress)
    while True:
        seen: HostError | None = None
        for user in users:
            try:
                return await waiting.race(_as_root(Address(host, port, user), private_key_pem, host_key))
            except (HostKeyChanged, WaitCancelled):
                raise
            except HostError as error:
                if seen is None or isinstance(seen, Unreachable):
                    seen = error
                if isinstance(error, Unreachable):
                    break  # another user would find nobody either
        await waiting.pause(seen or HostError(f"{host}: no user to log in as"))


async def _as_root(address: Address, private_key_pem: str, host_key: str | None) -> Host:
    """Log in and prove it: images with a disabled root take the key, print a hint, and hang up."""
    machine = await connect(address, private_key_pem, host_key, timeout_s=_CONNECT_S)
    try:
        proof = await machine.run("id -u", timeout_s=_CONNECT_S, check=False)
    except BaseException:
        await machine.close()
        raise
    if proof.stdout.strip() != "0":
        await machine.close()
        raise AuthRefused(
            f"{address}: logged in, but not as root", f"{proof.stdout}\n{proof.stderr}", proof.code
        )
    return machine


class _Waiting:
    """Time that is left, the pause that grows, and the last thing seen."""

    def __init__(
        self, what: str, timeout_s: float, cancelled: asyncio.Event, progress: Progress | None
    ) -> None:
        self._what = what
        self._started = time.monotonic()
        self._timeout_s = timeout_s
        self._cancelled = cancelled
        self._progress = progress
        self._attempt = 0

    async def race(self, attempt: Awaitable[T]) -> T:
        """The attempt, or the end of it the moment the person gives up."""
        work = asyncio.ensure_future(attempt)
        stop = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise WaitCancelled(f"{self._what}: cancelled while waiting")
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def pause(self, seen: HostError) -> None:
        """Say what was seen, then wait a little; out of time, raise it."""
        waited_s = time.monotonic() - self._started
        pause_s = _PAUSES_S[min(self._attempt, len(_PAUSES_S) - 1)]
        if waited_s + pause_s > self._timeout_s:
            raise type(seen)(f"{seen}; gave up after {waited_s:.0f} s")
        if self._progress is not None:
            await self._progress(f"waiting for {self._what} ({waited_s:.0f} s): {seen}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cancelled.wait(), pause_s)
            raise WaitCancelled(f"{self._what}: cancelled while waiting")
        self._attempt += 1
