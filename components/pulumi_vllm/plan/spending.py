"""What rented machines and a volume have cost in a day or month of UTC, and when a budget is used up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_SECONDS_PER_HOUR = 3600
_DAYS_AHEAD, _MONTHS_AHEAD = 32, 3


@dataclass(frozen=True, slots=True)
class Rental:
    """A machine or volume that was rented once. Moments are seconds since 1970 on the cloud's clock."""

    id: str
    billing: str
    """spot or on-demand."""
    usd_per_hour: float
    began: float
    ended: float | None = None
    """None while it is billed."""
    taken: bool = False
    """Whether the provider ended it."""
    usd: float | None = None
    """What the cloud has charged so far, where it says so."""

    def cost(self, start: float, end: float, now: float) -> float:
        """USD for the part of the time between two moments in which it was rented, up to `now`.

        Where the cloud has charged more than price and time explain, such as a minimum run time, that counts.
        """
        until = now if self.ended is None else self.ended
        overlap = min(end, until) - max(start, self.began)
        if overlap <= 0:
            # A charge without any time, as for a machine that never started, counts when it began.
            began_inside = start <= self.began < end and until <= self.began
            return (self.usd or 0.0) if began_inside else 0.0
        seconds = until - self.began
        return max(overlap * self.usd_per_hour / _SECONDS_PER_HOUR, (self.usd or 0.0) * overlap / seconds)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that machine and volume may cost in a day and in a calendar month of UTC, USD. None: no limit."""

    usd_per_day: float | None = None
    usd_per_month: float | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.usd_per_day is not None or self.usd_per_month is not None


@dataclass(frozen=True, slots=True)
class Costs:
    """What was rented, and the volume, which is billed on while no machine runs."""

    rentals: tuple[Rental, ...]
    volume: Rental | None = None

    def spent(self, start: float, end: float, now: float) -> float:
        """USD between two moments, up to `now`."""
        volume = () if self.volume is None else (self.volume,)
        return math.fsum(one.cost(start, end, now) for one in (*self.rentals, *volume))

    @property
    def volume_usd_per_hour(self) -> float:
        """Price of the volume while it is kept."""
        return 0.0 if self.volume is None or self.volume.ended is not None else self.volume.usd_per_hour


def day_of(moment: float) -> tuple[float, float]:
    """Start and end of the day, UTC."""
    start = datetime.fromtimestamp(moment, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return start.timestamp(), (start + timedelta(days=1)).timestamp()


def month_of(moment: float) -> tuple[float, float]:
    """Start and end of the calendar month, UTC."""
    start = datetime.fromtimestamp(moment, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start.timestamp(), (start + timedelta(days=32)).replace(day=1).timestamp()


def used_up_at(budget: Budget, costs: Costs, usd_per_hour: float, now: float) -> float:
    """The moment at which a machine of this price, billed from `now` on, has used up the budget.

    The volume's price until the end of each day and month is set aside. It is infinite if the budget lasts for the
    next 32 days and 3 months, and `now` or earlier if nothing is left.
    """
    moments = [math.inf]
    if budget.usd_per_day is not None:
        moments.append(
            _used_up(budget.usd_per_day, _periods(day_of, now, _DAYS_AHEAD), costs, usd_per_hour, now)
        )
    if budget.usd_per_month is not None:
        moments.append(
            _used_up(budget.usd_per_month, _periods(month_of, now, _MONTHS_AHEAD), costs, usd_per_hour, now)
        )
    return min(moments)


def fits_again_at(
    budget: Budget, costs: Costs, usd_per_hour: float, now: float, needed_s: float
) -> float | None:
    """The start of the day or month in which a machine can run for `needed_s` seconds; None if in none of them."""
    starts = [now, *(start for start, _ in _periods(day_of, now, _DAYS_AHEAD + 1))][1:]
    for start in starts:
        if (
            start > now
            and used_up_at(budget, _known_until(costs, now), usd_per_hour, start) >= start + needed_s
        ):
            return start
    return None


def _known_until(costs: Costs, now: float) -> Costs:
    """The costs without what a machine that runs now will cost later: it is stopped first."""
    stopped = tuple(
        one
        if one.ended is not None
        else Rental(one.id, one.billing, one.usd_per_hour, one.began, now, one.taken, one.usd)
        for one in costs.rentals
    )
    return Costs(stopped, costs.volume)


def _periods(
    period_of: Callable[[float], tuple[float, float]], now: float, count: int
) -> Iterator[tuple[float, float]]:
    moment = now
    for _ in range(count):
        start, end = period_of(moment)
        yield start, end
        moment = end


def _used_up(
    limit: float, periods: Iterable[tuple[float, float]], costs: Costs, usd_per_hour: float, now: float
) -> float:
    for start, end in periods:
        begin = max(start, now)
        kept = (end - begin) * costs.volume_usd_per_hour / _SECONDS_PER_HOUR
        left = limit - costs.spent(start, begin, now) - kept
        if left <= 0:
            return begin
        moment = begin + (left / usd_per_hour * _SECONDS_PER_HOUR if usd_per_hour > 0 else math.inf)
        if moment < end:
            return moment
    return math.inf
