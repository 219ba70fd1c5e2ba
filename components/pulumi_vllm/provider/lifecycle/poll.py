"""Poll until something is true: with growing pauses, progress lines, cancellation and a time limit."""

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, repeat
from typing import TypeVar

from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError

Found = TypeVar("Found")

API_PAUSES_S = (1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0)
"""Pauses between two calls of the rental API, which allows 100 calls per 15 minutes and address."""

HOST_PAUSES_S = (0.3, 0.5, 1.0, 2.0)
"""Pauses between two commands over an open SSH connection: most units finish within one second."""

_SHORTEST_PAUSE_S = 0.1


class PollTimeoutError(UserError):
    """The time limit passed. Most callers catch this and raise an error that says what to do."""

    def __init__(self, last_report: str, waited_s: float) -> None:
        super().__init__(f"gave up after {waited_s:.0f} s: {last_report}")
        self.last_report = last_report
        self.waited_s = waited_s


async def poll(
    call: Call,
    look: Callable[[], Awaitable[Found | None]],
    *,
    within_s: float,
    pauses: Sequence[float],
    report: Callable[[], str],
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Call `look` until it returns a value that is not None, and return that value.

    `pauses` are the seconds between two calls of `look`; the last one repeats. `report` describes what is being
    waited for: it is shown as progress, with the time that has passed. `within_s` may be `math.inf`.

    Raises:
        PollTimeoutError: `look` returned None until `within_s` had passed.
        Cancelled: the user cancelled the operation during a pause.
    """
    started, paused_s = clock(), 0.0
    for longest_s in chain(pauses, repeat(pauses[-1])):
        found = await look()
        if found is not None:
            return found
        waited_s = max(clock() - started, paused_s)  # pauses that take no time come to an end too
        if waited_s >= within_s:
            raise PollTimeoutError(report(), waited_s)
        await call.progress(f"{report()} ({waited_s:.0f} s)")
        pause_s = min(longest_s, max(_SHORTEST_PAUSE_S, within_s - waited_s))
        await call.sleep(pause_s)
        paused_s += pause_s
    raise AssertionError("unreachable: the last pause repeats")
