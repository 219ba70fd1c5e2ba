"""A limit on rented instances per hour, so that a loop in a program cannot run up costs."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable

_HOUR_S = 3600.0


class RentalLimit:
    """Counts the instances that this process rented within the last hour."""

    def __init__(self, per_hour: int = 8, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._lock = threading.Lock()
        self._rented_at: list[float] = []

    def check(self, name: str) -> None:
        """Refuse to rent one instance too many.

        Raises:
            CloudError: the limit of this hour is reached.
        """
        with self._lock:
            now = self._clock()
            self._rented_at = [at for at in self._rented_at if now - at < _HOUR_S]
            if len(self._rented_at) >= self._per_hour:
                wait_min = (_HOUR_S - (now - self._rented_at[0])) / 60
                raise CloudError(
                    f"renting {name}: {self._per_hour} instances were rented within the hour, "
                    "which looks like a loop; find out what became of them (`pulumi-vllm sweep`), "
                    f"or wait {wait_min:.0f} min"
                )

    def record(self) -> None:
        """Count an instance that was, or may have been, rented."""
        with self._lock:
            self._rented_at.append(self._clock())
