import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _loops(monkeypatch):
    """Pulumi's mocks leave the loops they make to the garbage collector."""
    policy, made = asyncio.get_event_loop_policy(), []
    real = policy.new_event_loop

    def new_event_loop():
        made.append(real())
        return made[-1]

    monkeypatch.setattr(policy, "new_event_loop", new_event_loop)
    yield
    for loop in made:
        # A program that was refused leaves tasks, which would be an error of the next test.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left and not loop.is_closed():
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
    asyncio.set_event_loop(None)
