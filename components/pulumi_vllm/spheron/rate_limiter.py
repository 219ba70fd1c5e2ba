"""Pacing of API calls: full speed at first, then slower; the server's own answers correct the estimate."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimiter:
    """A token bucket shared by the threads of one client.

    An empty bucket slows calls down and never refuses one. The published limits contradict each other (100
    and 250 calls per 15 min), other clients may share the address, and only a 429 is certain. Therefore
    `server_refused`, `server_accepted` and `server_reported` correct the bucket.
    """

    def __init__(
        self,
        calls: int = 100,
        window_s: float = 900.0,
        *,
        longest_pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._rate = calls / window_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(calls)
        self._refilled_at = clock()
        self._next_call_at = self._refilled_at

    def take(self) -> float:
        """Count one call and return the seconds to wait before it is made."""
        with self._lock:
            now = self._clock()
            self._refill(now)
            self._tokens -= 1.0
            if self._tokens >= 0:
                return max(0.0, self._next_call_at - now)
            # Callers queue one after the other. The debt never exceeds one call, so that a pause clears it.
            pace_s = min(-self._tokens / self._rate, self._longest_pause_s)
            self._tokens = 0.0
            self._next_call_at = max(self._next_call_at, now) + pace_s
            return self._next_call_at - now

    def server_refused(self) -> None:
        """Empty the bucket after a 429."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = 0.0

    def server_accepted(self) -> None:
        """Half fill the bucket when a call succeeds after a 429: the server's window has moved on."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = max(self._tokens, self._calls / 2)
            self._next_call_at = self._refilled_at

    def server_reported(self, remaining: int) -> None:
        """Take over the number of calls that the server says are left."""
        with self._lock:
            self._refill(self._clock())
            self._tokens = float(max(0, min(remaining, self._calls)))

    def _refill(self, now: float) -> None:
        self._tokens = min(float(self._calls), self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
