"""The policy of `reconcile` over traces of losses, and that spend never passes the budget."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.errors import ConfigError
from pulumi_vllm.plan.recovery import (
    MINIMUM_RUN_S,
    Action,
    Machine,
    Observed,
    Policy,
    decide,
    must_last_s,
    wanted_billing,
)
from pulumi_vllm.plan.spending import Budget, Costs, Rental, day_of, month_of, used_up_at

HOUR = 3600.0
MIDNIGHT = day_of(1_700_000_000)[0]
NOON = MIDNIGHT + 12 * HOUR
SPOT = Policy("spot", 4.0, losses=3, within_s=6 * HOUR, back_after_s=24 * HOUR, drain_timeout_s=60)


def taken(*ended, billing="spot", usd_per_hour=2.0):
    """Machines of an hour each, taken by the provider at these hours after noon."""
    return tuple(
        Rental(f"m{hours}", billing, usd_per_hour, NOON + (hours - 1) * HOUR, NOON + hours * HOUR, taken=True)
        for hours in ended
    )


def running(began=0.0, billing="spot", usd_per_hour=2.0):
    return Rental("now", billing, usd_per_hour, NOON + began * HOUR)


def observe(machine, *rentals, at=0.0, every_s=900.0, volume=None, **more):
    return Observed(machine, Costs(rentals, volume), NOON + at * HOUR, every_s, **more)


# -- spot and on demand -----------------------------------------------------------------------------------
def test_a_lost_spot_machine_is_replaced_by_a_spot_machine():
    decision = decide(SPOT, observe(Machine.TAKEN, *taken(0)))
    assert (decision.action, decision.billing) == (Action.UP, "spot")
    assert decision.because == "the provider took the machine, so another one is rented (spot)"


def test_after_three_losses_in_six_hours_one_is_rented_on_demand():
    decision = decide(SPOT, observe(Machine.TAKEN, *taken(-4, -2, 0)))
    assert decision.billing == "on-demand"
    assert decision.because.endswith("(on demand, after 3 losses in 6 hours)")
    assert decide(SPOT, observe(Machine.TAKEN, *taken(-7, -2, 0))).billing == "spot", "one loss is old"


def test_without_a_block_spot_nothing_changes_the_billing():
    never = dataclasses.replace(SPOT, losses=None)
    assert decide(never, observe(Machine.TAKEN, *taken(-3, -2, -1, 0))).billing == "spot"
    assert decide(never, observe(Machine.RUNS, running(-100, "on-demand"))).action is Action.NOTHING


def test_an_on_demand_machine_that_is_lost_is_replaced_on_demand_until_its_time_is_over():
    lost = (*taken(-3, -2, -1), *taken(1, billing="on-demand"))
    decision = decide(SPOT, observe(Machine.TAKEN, *lost, at=20))
    assert decision.billing == "on-demand"
    assert decision.because.endswith("(on demand until 2023-11-15 12:00 UTC)")
    assert decide(SPOT, observe(Machine.TAKEN, *lost, at=25)).billing == "spot"


def test_the_server_moves_back_to_spot_when_the_time_is_over_and_a_machine_is_on_offer():
    stays = decide(SPOT, observe(Machine.RUNS, *taken(-3, -2, -1), running(0, "on-demand"), at=23))
    assert stays.action is Action.NOTHING
    assert stays.because == "the machine runs on demand; spot is tried again after 2023-11-15 12:00 UTC"
    moves = decide(SPOT, observe(Machine.RUNS, *taken(-3, -2, -1), running(0, "on-demand"), at=24))
    assert (moves.action, moves.billing) == (Action.REPLACE, "spot")
    none = decide(SPOT, observe(Machine.RUNS, running(0, "on-demand"), at=24, spot_offered=False))
    assert none.action is Action.NOTHING
    assert "no spot machine is on offer" in none.because


def trace(policy, lifetimes_h, price=2.0):
    """Rent, lose and rent again; return the billing of each machine."""
    now, rentals = NOON, []
    for number, hours in enumerate(lifetimes_h):
        billing = wanted_billing(policy, Costs(tuple(rentals)), now)
        rentals.append(Rental(str(number), billing, price, now, now + hours * HOUR, taken=True))
        now += hours * HOUR
    return [one.billing for one in rentals]


def test_a_trace_of_short_spot_machines_pays_on_demand_for_a_day_then_tries_spot_again():
    spot, on_demand = ["spot"], ["on-demand"]
    assert (
        trace(SPOT, [1, 1, 1, 24, 1, 1, 1, 10, 14, 1])
        == spot * 3 + on_demand + spot * 3 + on_demand * 2 + spot
    )
    assert trace(SPOT, [5] * 8) == spot * 8, "two losses in six hours at most"


# -- what becomes of other machines -----------------------------------------------------------------------
def test_a_machine_that_runs_is_left_alone():
    assert decide(SPOT, observe(Machine.RUNS, running())).action is Action.NOTHING


@pytest.mark.parametrize("machine", [Machine.ENDED, Machine.NOT_NEEDED])
def test_a_machine_that_nobody_needs_stays_away(machine):
    decision = decide(SPOT, observe(machine, *taken(-1)))
    assert decision.action is Action.NOTHING
    assert "run `pulumi up` to have one again" in decision.because


@pytest.mark.parametrize(
    ("machine", "action"),
    [
        (Machine.UNUSABLE, Action.REPLACE),
        (Machine.HELD, Action.UP),
        (Machine.ENDED_ELSEWHERE, Action.UP),
        (Machine.UNFINISHED, Action.UP),
    ],
)
def test_what_is_wanted_back_is_rented_or_continued(machine, action):
    rentals = (running(),) if machine in {Machine.UNUSABLE, Machine.UNFINISHED} else ()
    decision = decide(SPOT, observe(machine, *rentals))
    assert decision.action is action


# -- the budget -------------------------------------------------------------------------------------------
def test_a_machine_is_ended_before_the_budget_of_the_day_is_used_up():
    policy = dataclasses.replace(SPOT, budget=Budget(usd_per_day=10))
    decision = decide(policy, observe(Machine.RUNS, running(-4.5), at=0))  # $9 spent, $1 is half an hour
    assert decision.action is Action.STOP
    assert decision.because == (
        "the budget is used up at 2023-11-14 12:30 UTC, so the machine is ended; "
        "the next one can be rented at 2023-11-15 00:00 UTC"
    )
    assert (
        decide(policy, observe(Machine.RUNS, running(-4), at=0)).action is Action.NOTHING
    )  # an hour is left


def test_a_machine_that_powered_off_by_itself_is_ended_when_its_budget_is_used_up():
    policy = dataclasses.replace(SPOT, budget=Budget(usd_per_day=10))
    assert decide(policy, observe(Machine.NOT_NEEDED, running(-4.5))).action is Action.STOP
    assert decide(policy, observe(Machine.NOT_NEEDED, running(-4))).action is Action.NOTHING
    assert decide(policy, observe(Machine.NOT_NEEDED)).action is Action.NOTHING


def test_no_machine_is_rented_that_could_not_be_ended_in_time():
    policy = dataclasses.replace(SPOT, budget=Budget(usd_per_day=10))
    lost = Rental("m", "spot", 2.0, NOON - 4 * HOUR, NOON, taken=True)  # $2 left, half an hour at $4
    decision = decide(policy, observe(Machine.TAKEN, lost))
    assert decision.action is Action.WAIT
    assert decision.because == (
        "the budget has not enough left for 56 minutes at up to $4/h, so no machine is rented; "
        "the next one can be rented at 2023-11-15 00:00 UTC"
    )
    assert (
        decide(policy, observe(Machine.UNUSABLE, dataclasses.replace(lost, ended=None))).action is Action.STOP
    )


def test_a_budget_that_is_too_small_for_any_day_says_so():
    policy = dataclasses.replace(SPOT, budget=Budget(usd_per_day=1))
    assert "raise max_usd_per_day or max_usd_per_month" in decide(policy, observe(Machine.TAKEN)).because


def test_the_volume_is_paid_first():
    volume = Rental("v", "volume", 0.25, MIDNIGHT - 100 * HOUR)
    costs = Costs((running(),), volume)
    # $10 a day, $6 of which are the volume's; $4 last two hours.
    assert used_up_at(Budget(usd_per_day=10), costs, 2.0, NOON) == NOON + 2 * HOUR
    assert used_up_at(Budget(usd_per_day=5), costs, 2.0, NOON) <= NOON


def test_a_new_day_has_a_new_budget_and_the_month_goes_on():
    assert used_up_at(Budget(usd_per_day=48), Costs((running(),)), 2.0, NOON) == math.inf
    # $24 from noon to midnight, then $46 of the next day.
    assert used_up_at(Budget(usd_per_day=46), Costs(()), 2.0, NOON) == MIDNIGHT + (24 + 23) * HOUR
    assert used_up_at(Budget(usd_per_month=50), Costs(()), 2.0, NOON) == NOON + 25 * HOUR


def test_what_the_cloud_charged_counts_where_it_is_more():
    short = Rental("m", "spot", 2.0, NOON - 0.1 * HOUR, NOON, taken=True, usd=0.7)
    assert Costs((short,)).spent(MIDNIGHT, NOON + HOUR, NOON + HOUR) == pytest.approx(0.7)
    none = Rental("m", "spot", 2.0, NOON, NOON, usd=0.7)
    assert Costs((none,)).spent(MIDNIGHT, NOON + HOUR, NOON + HOUR) == pytest.approx(0.7)


class World:
    """A cloud with machines that are taken at random, a volume, and a schedule that may miss every other run."""

    def __init__(self, policy, every_s, volume_usd_per_hour):
        self.policy, self.every_s = policy, every_s
        self.rentals: list[Rental] = []
        self.volume = Rental("v", "volume", volume_usd_per_hour, NOON - 40 * 24 * HOUR)
        self.machine = Machine.HELD
        self.now = NOON

    def end(self, moment, *, lost):
        self.rentals[-1] = dataclasses.replace(self.rentals[-1], ended=moment, taken=lost)
        self.machine = Machine.TAKEN if lost else Machine.HELD

    def step(self, price, spot_price, lives_s, delay):
        costs = Costs(tuple(self.rentals), self.volume)
        decision = decide(self.policy, Observed(self.machine, costs, self.now, self.every_s))
        end_s = self.policy.drain_timeout_s + 300
        if decision.action in {Action.STOP, Action.REPLACE} and self.machine is Machine.RUNS:
            # Drained and ended as late as the provider may, and not within the minimum run time.
            self.now = max(self.now, self.rentals[-1].began + MINIMUM_RUN_S) + end_s
            self.end(self.now, lost=False)
        if decision.action in {Action.UP, Action.REPLACE}:
            paid = spot_price if decision.billing == "spot" else price
            self.rentals.append(Rental(str(len(self.rentals)), decision.billing, paid, self.now))
            self.machine = Machine.RUNS
            self.lost_at = self.now + lives_s
        self.now += delay * 2 * self.every_s
        if self.machine is Machine.RUNS and self.lost_at <= self.now:
            self.end(self.lost_at, lost=True)


@settings(max_examples=300, deadline=None)
@given(
    per_day=st.one_of(st.none(), st.floats(1, 80)),
    per_month=st.one_of(st.none(), st.floats(5, 900)),
    every_min=st.sampled_from([5, 15, 60]),
    volume=st.sampled_from([0.0, 0.02, 0.5]),
    steps=st.lists(
        st.tuples(st.floats(0.5, 4.0), st.floats(0.1, 2.0), st.floats(60, 30 * HOUR), st.floats(0.01, 1.0)),
        min_size=5,
        max_size=120,
    ),
)
def test_spend_never_passes_the_budget(per_day, per_month, every_min, volume, steps):
    policy = dataclasses.replace(SPOT, budget=Budget(per_day, per_month))
    world = World(policy, every_min * 60, volume)
    for price, spot_price, lives_s, delay in steps:
        world.step(price, spot_price, lives_s, delay)
    machines, kept = Costs(tuple(world.rentals)), Costs((), world.volume)
    for limit, period_of in ((per_day, day_of), (per_month, month_of)):
        if limit is None:
            continue
        start, end = period_of(NOON)
        while start <= world.now:
            # A volume alone may cost more than the budget. Then no machine may be rented.
            volume_usd = kept.spent(start, end, max(end, world.now))
            spent = machines.spent(start, end, world.now)
            assert spent <= max(0.0, limit - volume_usd) + 1e-6
            start, end = period_of(end)


def test_the_world_rents_and_ends_machines():
    """The property above is not empty: within it, machines are rented, lost, and ended for the budget."""
    world = World(dataclasses.replace(SPOT, budget=Budget(20)), 900, 0.02)
    actions = []
    for lives in itertools.islice(itertools.cycle([0.5, 30]), 400):
        before = world.machine
        world.step(3.0, 1.5, lives * HOUR, 0.5)
        actions.append((before, world.machine))
    assert {(Machine.HELD, Machine.RUNS), (Machine.RUNS, Machine.HELD), (Machine.RUNS, Machine.TAKEN)} <= set(
        actions
    )
    assert {one.billing for one in world.rentals} == {"spot", "on-demand"}


def test_the_reserve_is_two_runs_of_the_schedule_the_drain_and_the_end():
    assert must_last_s(SPOT, 900) == 2 * 900 + 60 + 300


# -- the stack file -----------------------------------------------------------------------------------------
def block(**machine):
    rented = {"gpu": "CPU", "count": 0, "billing": "spot", "fallback": "on-demand", "max_usd_per_hour": 0.1}
    return {"model": "mistral-small-4-tiny", "context": 4096, "storage": "1GB", "machine": rented | machine}


def test_the_policy_of_a_stack_file_survives_its_way_through_the_state():
    deployment = Deployment.parse(block(max_usd_per_day=2, spot={"losses": 2}))
    policy = Policy.of(deployment)
    assert (policy.losses, policy.within_s, policy.back_after_s) == (2, 6 * HOUR, 24 * HOUR)
    assert Policy.from_json(policy.to_json()) == policy
    plain = Policy.of(Deployment.parse(block()))
    assert Policy.from_json(plain.to_json()) == plain
    assert plain.losses is None


@pytest.mark.parametrize(
    ("machine", "error"),
    [
        (
            {"fallback": None, "spot": {"losses": 2}},
            "server.machine.spot: has no effect without billing: spot and fallback",
        ),
        (
            {"spot": {"losses": 3, "within_hours": 30}},
            "server.machine.spot.back_after_hours: 24 is shorter than within_hours, 30",
        ),
        ({"max_usd_per_day": 0}, "server.machine.max_usd_per_day"),
        ({"spot": {"loses": 1}}, "server.machine.spot.loses: unknown key; did you mean"),
    ],
)
def test_a_wrong_policy_is_refused(machine, error):
    with pytest.raises(ConfigError) as caught:
        Deployment.parse(block(**machine))
    assert error in str(caught.value)
