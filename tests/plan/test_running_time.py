"""Periods and budgets that end a machine earlier than the stack file wants it."""

from pathlib import Path

import pytest
import yaml
from pulumi_vllm.plan import Deployment, plan, schedule

STACK = Path(__file__).parents[2] / "stacks" / "Pulumi.spheron-h200-1x-nvfp4.yaml"
WEEKDAYS = {"up": "0 7 * * 1-5", "down": "0 20 * * 1-5"}


def rules(machine=None, **more):
    block = yaml.safe_load(STACK.read_text())["config"]["pulumi-vllm:server"]
    block["access"]["allow"] = ["0.0.0.0/0"]
    block["machine"] |= machine or {}
    found = plan(Deployment.parse(block | more)).findings
    return {
        one.rule: one.message for one in found if one.rule in {"expires-within-schedule", "budget-too-small"}
    }


@pytest.mark.parametrize(
    ("up", "down", "hours"),
    [
        ("0 7 * * 1-5", "0 20 * * 1-5", 13),
        ("0 22 * * *", "30 6 * * *", 8.5),
        ("30 6 * * 1", "0 18 * * 5", 107.5),
        ("0 7,9 * * *", "0 20 * * *", 13),  # up again while it is up
    ],
)
def test_the_longest_time_up(up, down, hours):
    assert schedule.longest_hours(schedule.parse(up), schedule.parse(down)) == hours


@pytest.mark.parametrize(("expires", "found"), [("8h", True), ("13h", False), ("2d", False)])
def test_a_period_that_ends_before_the_schedule_does_is_a_warning(expires, found):
    shown = rules(expires=expires, schedule=WEEKDAYS)
    assert (set(shown) == {"expires-within-schedule"}) == found
    assert not found or "8 h end before server.schedule does" in shown["expires-within-schedule"]


def test_a_period_or_a_schedule_alone_is_none():
    assert rules(expires="8h") == rules(schedule=WEEKDAYS) == {}


@pytest.mark.parametrize("key", ["max_usd_per_day", "max_usd_per_month"])
def test_a_budget_for_which_no_machine_is_rented_is_a_warning(key):
    ceiling = {"max_usd_per_hour": 4.0}
    shown = rules(ceiling | {key: 2.0})
    assert shown["budget-too-small"].startswith(f"server.machine.{key}: $2.00 are less than the $")
    assert rules(ceiling | {key: 20.0}) == {}
