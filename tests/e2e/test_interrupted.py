"""Ctrl-C and a killed engine at any moment of `up`: no rented machine is lost."""

import os
import random
import signal
import time

import pytest
from harness import client

SEED = int(os.environ.get("INTERRUPT_SEED", "20261123"))
# The moments of `up` in tier ci; tier all has ten for each signal.
FEW, MANY = 2, 10
# `up` takes about this long with the fake engine on two cores; the moments are spread over it.
UP_S = 25.0


def interrupted(project, signum: int, after_s: float) -> str:
    running = project.start("up", "--yes", "--skip-preview")
    time.sleep(after_s)
    if running.poll() is None:
        os.kill(running.pid, signum)
    out, _ = running.communicate(timeout=180)
    return out


def settle(project) -> None:
    """Remove the lock that a killed engine leaves; the plugin exits by itself."""
    project.pulumi("cancel", "--yes", check=False)


def machines_of(project) -> list[dict]:
    return [m for m in project.cloud.machines() if m["name"].startswith(f"{project.stack}-")]


# In tier ci, each signal is tested once, in one of the two tests.
LATER = pytest.mark.all


@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGINT, marks=LATER), signal.SIGKILL], ids=["ctrl-c", "kill"]
)
def test_up_again_ends_in_one_running_machine(projects, tmp_path, signum):
    chance = random.Random(SEED + signum)
    project = projects("fake", stack=f"again-{signum}")
    for _ in range(FEW):
        interrupted(project, signum, chance.uniform(1, UP_S))
        settle(project)
    project.up()
    (machine,) = machines_of(project)
    assert machine["id"] == project.machine_id()
    outputs = project.outputs()
    ai = client(outputs, tmp_path)
    answer = ai.chat.completions.create(
        model=outputs["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=20
    )
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=LATER)], ids=["ctrl-c", "kill"]
)
def test_destroy_after_an_interrupted_up_leaves_nothing_unknown(projects, signum):
    chance = random.Random(SEED * 2 + signum)
    project = projects("fake", stack=f"gone-{signum}")
    for _ in range(FEW):
        interrupted(project, signum, chance.uniform(1, UP_S))
        settle(project)
        project.cloud.pass_minutes(30)
        project.destroy()
        swept = project.sweep()
        unknown = [m["id"] for m in machines_of(project) if m["id"] not in swept.stdout]
        assert unknown == [], "a machine that neither state nor sweep knows"


@pytest.mark.all
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
@pytest.mark.parametrize("moment", range(MANY))
def test_every_moment(projects, tmp_path, signum, moment):
    project = projects("fake", stack=f"moment-{signum}-{moment}")
    interrupted(project, signum, 0.5 + moment * UP_S / MANY)
    settle(project)
    project.up()
    (machine,) = machines_of(project)
    assert machine["id"] == project.machine_id()
