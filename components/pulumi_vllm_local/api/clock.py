"""The virtual clock: it runs faster than real time by a factor, can be moved forward, and never goes back."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Interval in real seconds at which sleepers check the clock, so that an advance wakes them.
_POLL_S = 0.05


class VirtualClock:
    """Virtual seconds since the epoch: the unit of latencies, minimum run times and rate windows."""

    def __init__(self, factor: float, start: float, real: Callable[[], float] = time.monotonic) -> None:
        """Start at a virtual time; `factor` virtual seconds pass per real one."""
        if factor <= 0:
            raise ValueError(
                f"clock: factor {factor} is not above 0; use 1 for real time, or 60 for a minute per second"
            )
        self.factor = factor
        self._real = real
        self._origin = real()
        self._start = start

    def now(self) -> float:
        """Virtual seconds since the epoch."""
        return self._start + (self._real() - self._origin) * self.factor

    def advance(self, seconds: float) -> None:
        """Move forward by virtual seconds."""
        if seconds < 0:
            raise ValueError(f"clock: cannot go back by {-seconds} s")
        self._start += seconds

    async def sleep(self, seconds: float) -> None:
        """Sleep for virtual seconds; an advance of the clock shortens the sleep."""
        await self.until(self.now() + seconds)

    async def until(self, moment: float) -> None:
        """Sleep until a virtual moment."""
        # Polling, because an advance must wake sleepers in every event loop.
        while (left := moment - self.now()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left / self.factor, _POLL_S))


def iso(moment: float | None) -> str | None:
    """Format a time as the API does."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
