"""Polling, on a clock that only moves when something sleeps."""

import math

import pytest
from pulumi_vllm.provider.lifecycle.poll import PollTimeoutError, poll
from pulumi_vllm.provider.plugin.errors import Cancelled


class Call:
    """The part of a request that polling uses: progress lines, and pauses that can be cancelled."""

    def __init__(self, cancelled_at=math.inf):
        self.now, self.cancelled_at = 0.0, cancelled_at
        self.pauses, self.lines = [], []

    async def progress(self, message):
        self.lines.append(message)

    async def sleep(self, seconds):
        if self.now >= self.cancelled_at:
            raise Cancelled("cancelled")
        self.pauses.append(seconds)
        self.now += seconds


def answers(*values):
    """A `look` that returns these values in turn; the last one repeats."""
    left = list(values)

    async def look():
        return left.pop(0) if len(left) > 1 else left[0]

    return look


async def run(call, look, *, within_s=60.0, pauses=(1.0, 2.0, 5.0), report=lambda: "machine is deploying"):
    return await poll(call, look, within_s=within_s, pauses=pauses, report=report, clock=lambda: call.now)


async def test_a_value_found_at_once_needs_no_pause():
    call = Call()
    assert await run(call, answers("ready")) == "ready"
    assert (call.pauses, call.lines) == ([], [])


@pytest.mark.parametrize("value", [0.0, False, ""])
async def test_a_false_value_is_found_too(value):
    assert await run(Call(), answers(None, value)) == value


async def test_pauses_grow_and_the_last_one_repeats():
    call = Call()
    assert await run(call, answers(None, None, None, None, None, "ready"), within_s=math.inf) == "ready"
    assert call.pauses == [1.0, 2.0, 5.0, 5.0, 5.0]


async def test_progress_shows_the_current_report_and_the_time_passed():
    call = Call()
    reports = iter(["deploying", "running"])
    await run(call, answers(None, None, "ready"), report=lambda: next(reports))
    assert call.lines == ["deploying (0 s)", "running (1 s)"]


async def test_a_time_limit_looks_once_more_and_raises_the_last_report():
    call = Call()
    with pytest.raises(PollTimeoutError, match=r"^gave up after 4 s: machine is deploying$") as caught:
        await run(call, answers(None), within_s=4.0)
    assert (caught.value.last_report, caught.value.waited_s) == ("machine is deploying", 4.0)
    assert call.pauses == [1.0, 2.0, 1.0]


async def test_a_value_found_after_the_last_pause_counts():
    assert await run(Call(), answers(None, None, None, "ready"), within_s=4.0) == "ready"


async def test_a_cancelled_operation_ends_the_polling():
    call = Call(cancelled_at=3.0)
    with pytest.raises(Cancelled):
        await run(call, answers(None))
    assert call.now == 3.0


async def test_an_error_in_look_is_passed_on():
    async def look():
        raise LookupError("no such machine")

    with pytest.raises(LookupError, match="no such machine"):
        await run(Call(), look)


async def test_pauses_that_take_no_time_come_to_an_end():
    call = Call()
    with pytest.raises(PollTimeoutError):
        await poll(
            call, answers(None), within_s=60.0, pauses=(1.0, 2.0), report=lambda: "waiting", clock=lambda: 0.0
        )
    assert len(call.lines) == 31
