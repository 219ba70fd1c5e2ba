"""The virtual clock."""

from __future__ import annotations

import asyncio

import pytest
from pulumi_vllm_local.api.clock import VirtualClock, iso


def test_the_clock_runs_at_its_factor_and_can_be_advanced():
    real = [100.0]
    clock = VirtualClock(60.0, 1000.0, lambda: real[0])
    assert clock.now() == 1000.0
    real[0] += 2
    assert clock.now() == 1120.0
    clock.advance(30)
    assert clock.now() == 1150.0
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="factor 0"):
        VirtualClock(0, 0)


async def test_an_advance_wakes_a_sleeper():
    clock = VirtualClock(1.0, 0.0)
    sleeper = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0.01)
    assert not sleeper.done()
    clock.advance(3600)
    await asyncio.wait_for(sleeper, 1)


def test_times_are_formatted_in_utc():
    assert iso(0.25) == "1970-01-01T00:00:00.250Z"
    assert iso(None) is None
