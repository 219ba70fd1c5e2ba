"""How many calls an address may make: full speed first, then paced; what the server says counts more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable


class CallBudget:
    """A token bucket shared by the threads of one client.

    An empty bucket slows calls down and never refuses one: the published limits contradict each other (100
    and 250 per 15 min), the address may be shared, and only the server's 429 is the truth. `refused`,
    `healed` and `told` carry it here.
    """

    def __init__(
        self,
        calls: int = 100,
        window_s: float = 900.0,
        *,
        slowest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._rate = calls / window_s
        self._slowest_s = slowest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(calls)
        self._at = clock()
        self._next = self._at

    def take(self) -> float:
        """Count one call; returns the seconds to wait before it is made."""
        with self._lock:
            now = self._clock()
            self._refill(now)
            self._tokens -= 1.0
            if self._tokens >= 0:
                return max(0.0, self._next - now)
            # Callers queue one after the other; the debt never exceeds one call, so that a pause heals it.
            pace_s = min(-self._tokens / self._rate, self._slowest_s)
            self._tokens = 0.0
            self._next = max(self._next, now) + pace_s
            return self._next - now

    def refused(self) -> None:
        """The server said 429: whatever we believed to have left is spent."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = 0.0

    def healed(self) -> None:
        """A call went through after a refusal: the server's window has moved, whatever our clock says of it."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = max(self._tokens, self._calls / 2)
            self._next = self._at

    def told(self, remaining: int) -> None:
        """The server said how many calls are left: believe it, in either direction."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = float(max(0, min(remaining, self._calls)))

    def _refill(self, now: float) -> None:
        self._tokens = min(float(self._calls), self._tokens + (now - self._at) * self._rate)
        self._at = now


class SpendGuard:
    """A wall against a loop that rents: so many machines per hour and process, whatever asks for them."""

    def __init__(self, max_creates_per_hour: int = 8, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = max_creates_per_hour
        self._clock = clock
        self._lock = threading.Lock()
        self._created: list[float] = []

    def check(self, name: str) -> None:
        """Refuse one machine too many.

        Raises:
            CloudError: the hour's machines are rented.
        """
        with self._lock:
            now = self._clock()
            self._created = [at for at in self._created if now - at < 3600.0]  # noqa: PLR2004 (an hour)
            if len(self._created) >= self._most:
                wait_min = (3600.0 - (now - self._created[0])) / 60
                raise CloudError(
                    f"renting {name}: {self._most} machines were rented within the hour, "
                    "which looks like a loop; find out what became of them (`pulumi-vllm sweep`), "
                    f"or wait {wait_min:.0f} min"
                )

    def rented(self) -> None:
        """Count a machine that was, or may have been, rented."""
        with self._lock:
            self._created.append(self._clock())
