"""Cron expressions of a stack file's `schedule`, and the hours a month between going up and going down. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

_DAYS: Final = 7
_MONTHS: Final = 12
# A calendar repeats after 400 years; a common year that begins on a Friday is near the mean of all of them.
_YEAR: Final = 2027
MOST_PER_DAY: Final = 24
"""How often a day a machine may go up or down. Each start is billed for at least its minimum run time."""

_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_PART = re.compile(r"(?P<first>\*|[a-z0-9]+)(?:-(?P<last>[a-z0-9]+))?(?:/(?P<step>[0-9]{1,4}))?")


class Cron(NamedTuple):
    """A cron expression of five fields, in UTC."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Whether day of the month and day of the week are both restricted. Then one of them suffices, as in cron."""

    def is_on(self, day: date) -> bool:
        """Whether it fires on this day."""
        in_month, in_week = day.day in self.days, day.isoweekday() % _DAYS in self.weekdays
        matches = in_month or in_week if self.either_day else in_month and in_week
        return day.month in self.months and matches

    def times(self) -> list[int]:
        """Return the minutes of a day at which it fires, in order."""
        return sorted(hour * 60 + minute for hour in self.hours for minute in self.minutes)


def parse(text: str) -> Cron:
    """Return the parsed expression.

    Raises:
        ValueError: it is not one. The message says which field is wrong.
    """
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        msg = f"{text!r} has {len(words)} fields; write five: minute, hour, day, month, weekday, such as 0 7 * * 1-5"
        raise ValueError(msg)
    values = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    found = Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(weekday % _DAYS for weekday in weekdays),
        either_day=not (words[2].startswith("*") or words[4].startswith("*")),
    )
    if len(found.times()) > MOST_PER_DAY:
        msg = f"{text!r} fires {len(found.times())} times a day; at most {MOST_PER_DAY} are allowed"
        raise ValueError(msg)
    # Four years have every date, the 29th of February too.
    if not any(found.is_on(date(_YEAR, 1, 1) + timedelta(day)) for day in range(4 * 366)):
        msg = f"{text!r} never fires: no month that it names has that day"
        raise ValueError(msg)
    return found


def hours_per_month(up: Cron, down: Cron) -> float:
    """Return the hours between going up and the next going down, as a mean over the months of a year."""
    start = datetime(_YEAR, 1, 1, tzinfo=UTC)
    return running_hours(up, down, start, start.replace(year=_YEAR + 1)) / _MONTHS


def running_hours(up: Cron, down: Cron, start: datetime, end: datetime) -> float:
    """Return the hours between two moments of UTC in which the machine is up.

    Where both fire in the same minute it goes up. Before the first event of the year before, it is down.
    """
    is_up, last, seconds = False, start, 0.0
    for moment, becomes_up in _events(up, down, start - timedelta(days=366), end):
        if moment > last:
            seconds += (moment - last).total_seconds() * is_up
            last = moment
        is_up = becomes_up
    return (seconds + (end - last).total_seconds() * is_up) / 3600


def longest_hours(up: Cron, down: Cron) -> float:
    """Return the most hours between going up and the next going down."""
    start = datetime(_YEAR, 1, 1, tzinfo=UTC)
    longest, since = timedelta(), None
    for moment, becomes_up in _events(up, down, start, start.replace(year=_YEAR + 1)):
        if becomes_up:
            since = since or moment
        elif since is not None:
            longest, since = max(longest, moment - since), None
    return longest.total_seconds() / 3600


def _events(up: Cron, down: Cron, start: datetime, end: datetime) -> list[tuple[datetime, bool]]:
    """When the machine goes up (True) or down from `start` on and before `end`, in order."""
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight + timedelta(days=number) for number in range((end - midnight).days + 1)]
    events = [
        (day + timedelta(minutes=minute), is_up)
        for cron, is_up in ((down, False), (up, True))
        for day in days
        if cron.is_on(day.date())
        for minute in cron.times()
    ]
    return sorted(event for event in events if start <= event[0] < end)


def _field(text: str, name: str, lowest: int, highest: int, words: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            msg = f"{name} {part!r} is neither a number, a range, a step, nor *"
            raise ValueError(msg)
        step = int(match["step"] or 1)
        if match["first"] == "*":
            first, last = lowest, min(highest, 6) if highest == _DAYS else highest
        else:
            first = _number(match["first"], name, lowest, highest, words)
            last = _number(match["last"], name, lowest, highest, words) if match["last"] else first
            if match["step"] and not match["last"]:
                last = highest
        if step == 0 or last < first or (match["first"] == "*" and match["last"]):
            msg = f"{name} {part!r} matches nothing; write the smaller number first, and a step above 0"
            raise ValueError(msg)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, name: str, lowest: int, highest: int, words: tuple[str, ...]) -> int:
    number = int(text) if text.isdigit() else lowest + words.index(text) if text in words else -1
    if not lowest <= number <= highest:
        msg = f"{name} {text!r} is not between {lowest} and {highest}"
        raise ValueError(msg)
    return number
