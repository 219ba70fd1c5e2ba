"""What a stack has cost since its start and in this month, and what the month will cost. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.schedule import running_hours
from pulumi_vllm.plan.spending import month_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.schedule import Cron

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Item:
    """A machine or volume that was rented once. Moments are seconds since 1970 on the cloud's clock."""

    kind: str
    """machine or volume."""
    id: str
    name: str
    status: str
    began: float
    ended: float | None
    """None while it is billed."""
    usd_per_hour: float | None
    """None if the cloud does not say."""
    charged: float | None = None
    """USD that the cloud says it has charged so far; None if it does not say."""

    @property
    def source(self) -> str:
        """Where its cost comes from."""
        if self.charged is not None:
            return "the cloud's record"
        return "unknown: the cloud shows no price" if self.usd_per_hour is None else "computed: time x price"

    def usd(self, start: float, end: float, now: float) -> float:
        """USD for the part of the time between two moments, up to `now`.

        A charge of the cloud is spread evenly over the time in which it was rented.
        """
        until = now if self.ended is None else self.ended
        lasted, overlap = until - self.began, min(end, until) - max(start, self.began)
        if self.charged is not None and lasted <= 0:
            return self.charged if start <= self.began < end else 0.0
        if overlap <= 0:
            return 0.0
        if self.charged is not None:
            return self.charged * overlap / lasted
        return overlap / _SECONDS_PER_HOUR * (self.usd_per_hour or 0.0)


@dataclass(frozen=True, slots=True)
class Report:
    """The cost of a stack."""

    items: Sequence[Item]
    now: float
    up_and_down: tuple[Cron, Cron] | None = None
    """The stack file's schedule."""

    @property
    def since(self) -> float | None:
        """When the first of the items was rented."""
        return min((one.began for one in self.items), default=None)

    @property
    def usd(self) -> float:
        """USD since the start."""
        return math.fsum(one.usd(-math.inf, math.inf, self.now) for one in self.items)

    @property
    def computed_usd(self) -> float:
        """The part of it of which the cloud has no record."""
        return math.fsum(one.usd(-math.inf, math.inf, self.now) for one in self.items if one.charged is None)

    @property
    def usd_this_month(self) -> float:
        """USD since the start of the calendar month, UTC."""
        start, end = month_of(self.now)
        return math.fsum(one.usd(start, end, self.now) for one in self.items)

    @property
    def usd_per_hour(self) -> float:
        """Price of what is billed now."""
        return math.fsum(one.usd_per_hour or 0.0 for one in self.items if one.ended is None)

    @property
    def usd_forecast(self) -> float:
        """USD of the whole month: what is billed now runs on, or the machine runs by the schedule."""
        _, end = month_of(self.now)
        hours = (end - self.now) / _SECONDS_PER_HOUR
        machines = [one for one in self.items if one.kind == "machine"]
        kept = [one for one in self.items if one.kind != "machine" and one.ended is None]
        volumes = math.fsum(one.usd_per_hour or 0.0 for one in kept) * hours
        if self.up_and_down is None:
            running = math.fsum(one.usd_per_hour or 0.0 for one in machines if one.ended is None) * hours
        else:
            moments = (datetime.fromtimestamp(moment, UTC) for moment in (self.now, end))
            newest = max(machines, key=lambda one: one.began, default=None)
            price = 0.0 if newest is None else newest.usd_per_hour or 0.0
            running = running_hours(*self.up_and_down, *moments) * price
        return self.usd_this_month + volumes + running

    @property
    def assumes(self) -> str:
        """What the forecast assumes."""
        if self.up_and_down is not None:
            return "the machine runs by server.schedule at the price of the last one, and volumes are kept"
        return "what is billed now is billed on at its price"

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        _, end = month_of(self.now)
        return {
            "since": None if self.since is None else iso(self.since),
            "until": iso(self.now),
            "usd": round(self.usd, 4),
            "computed_usd": round(self.computed_usd, 4),
            "usd_this_month": round(self.usd_this_month, 4),
            "usd_per_hour": round(self.usd_per_hour, 6),
            "forecast": {"usd": round(self.usd_forecast, 4), "until": iso(end), "assumes": self.assumes},
            "items": [
                {
                    "kind": one.kind,
                    "id": one.id,
                    "name": one.name,
                    "status": one.status,
                    "began": iso(one.began),
                    "ended": None if one.ended is None else iso(one.ended),
                    "usd_per_hour": one.usd_per_hour,
                    "usd": round(one.usd(-math.inf, math.inf, self.now), 4),
                    "source": one.source,
                }
                for one in self.items
            ],
        }


def iso(moment: float) -> str:
    """Format a moment."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
