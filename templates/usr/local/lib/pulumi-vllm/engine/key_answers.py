"""Counts the answers that each API key has in vLLM. The gateway counts requests, of which one may ask for many answers.

A request for one answer is refused only beside one for several: of the others, the gateway passes on no more than vLLM
computes at once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEY, _LIMIT = b"x-key-id", b"x-key-concurrent"


class TooManyAnswers(Exception):  # noqa: N818 - an answer to a client
    """A request for more answers than the key may have. `later` says whether it may be sent again."""

    def __init__(self, message: str, *, later: bool) -> None:
        super().__init__(message)
        self.message, self.later = message, later


class KeyAnswers:
    """What each key has in vLLM, which computes so many answers at once."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._running: Counter[bytes] = Counter()
        self._several: Counter[bytes] = Counter()
        """Those of requests for more than one answer."""

    @contextlib.contextmanager
    def running(self, headers: Mapping[bytes, bytes], answers: int) -> Iterator[None]:
        """Hold the answers of one request. Raises TooManyAnswers if its key may not have them."""
        key, limit = headers.get(_KEY, b""), headers.get(_LIMIT)
        several = answers if answers > 1 else 0
        if limit is not None and (several or (answers and self._several[key])):
            self._check(key.decode(), self._running[key], answers, int(limit))
        self._running[key] += answers
        self._several[key] += several
        try:
            yield
        finally:
            self._running[key] -= answers
            self._several[key] -= several
            self._running += Counter()  # forget keys that have none
            self._several += Counter()

    def _check(self, key: str, running: int, answers: int, limit: int) -> None:
        if answers > limit:
            allowed = f"the {limit:,} that key {key} may have (concurrent)"
            message = f"{answers:,} answers in one request are more than {allowed}."
            raise TooManyAnswers(message, later=False)
        most = min(limit, self.places)
        if running and running + answers > most:
            more = f"{answers:,} more exceed the {most:,} that it may have"
            message = f"Key {key} has {running:,} answers running; {more}."
            raise TooManyAnswers(message, later=True)
