"""What `pulumi-vllm reconcile` does next: the policy of the stack file applied to what was observed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.plan.spending import Budget, Costs, Rental, fits_again_at, used_up_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.config import Deployment

MINIMUM_RUN_S: Final = 1200
"""The cloud ends no machine earlier: 20 minutes for every type in Spheron's documentation (2026-05)."""

TERMINATION_S: Final = 300
"""How long the provider waits for the end of a machine after its drain (`provider/lifecycle/terminate.py`)."""

LAST_UP_VARIABLE: Final = "PULUMI_VLLM_LAST_UP"
"""Environment variable through which an update goes on with a period (`expires`) that began before."""

_HOUR_S = 3600


class Machine(Enum):
    """What is known of the server's machine."""

    RUNS = "runs"
    UNFINISHED = "unfinished"
    """It is rented, but the update that was to make it serve failed or was interrupted."""
    TAKEN = "taken"
    """The provider ended it."""
    ENDED_ELSEWHERE = "ended elsewhere"
    """It is in the state, and was ended outside Pulumi."""
    UNUSABLE = "unusable"
    """It is billed, but stopped or failed, and no call of the cloud starts it."""
    ENDED = "ended"
    """`pulumi destroy` ended it, so nobody wants it back."""
    NOT_NEEDED = "not needed"
    """It powered off by itself (`expires`, `idle_stop`), or was ended after that."""
    HELD = "held"
    """An earlier run of reconcile ended it, or could not rent one."""


class Action(Enum):
    """What is done."""

    NOTHING = "nothing"
    UP = "up"
    """Run `pulumi up`."""
    REPLACE = "replace"
    """Run `pulumi up`, and end the present machine first."""
    STOP = "stop"
    """End the machine; the volume stays."""
    WAIT = "wait"
    """Rent nothing, because the budget has not enough left."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the stack file allows, as it was last deployed."""

    billing: str
    max_usd_per_hour: float
    budget: Budget = field(default_factory=Budget)
    losses: int | None = None
    """Spot machines lost within `within_s` after which one is rented on demand; None: never."""
    within_s: float = 0.0
    back_after_s: float = 0.0
    """After this time on demand, a spot machine is tried again."""
    drain_timeout_s: float = 0.0

    @classmethod
    def of(cls, deployment: Deployment) -> Policy:
        """The policy of a deployment."""
        machine, spot = deployment.machine, deployment.machine.spot
        return cls(
            billing=machine.billing,
            max_usd_per_hour=machine.ceiling,
            budget=Budget(machine.max_usd_per_day, machine.max_usd_per_month),
            losses=spot.losses,
            within_s=spot.within_hours * _HOUR_S,
            back_after_s=spot.back_after_hours * _HOUR_S,
            drain_timeout_s=deployment.drain_timeout_s,
        )

    def to_json(self) -> dict[str, Any]:
        """The policy as a server's state holds it."""
        values = {
            "billing": self.billing,
            "maxUsdPerHour": self.max_usd_per_hour,
            "maxUsdPerDay": self.budget.usd_per_day,
            "maxUsdPerMonth": self.budget.usd_per_month,
            "losses": self.losses,
            "withinS": self.within_s,
            "backAfterS": self.back_after_s,
            "drainTimeoutS": self.drain_timeout_s,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Policy:
        """Read what `to_json` returned, from a state."""
        losses = values.get("losses")
        return cls(
            billing=str(values["billing"]),
            max_usd_per_hour=float(values["maxUsdPerHour"]),
            budget=Budget(values.get("maxUsdPerDay"), values.get("maxUsdPerMonth")),
            losses=None if losses is None else int(losses),
            within_s=float(values.get("withinS") or 0.0),
            back_after_s=float(values.get("backAfterS") or 0.0),
            drain_timeout_s=float(values.get("drainTimeoutS") or 0.0),
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed before a decision."""

    machine: Machine
    costs: Costs
    now: float
    """Seconds since 1970 on the cloud's clock."""
    every_s: float
    """Time between two runs of the schedule. One of them may be missed."""
    spot_offered: bool = True
    """Whether a spot machine is on offer now."""

    @property
    def current(self) -> Rental | None:
        """The machine that is billed now."""
        billed = (one for one in self.costs.rentals if one.ended is None)
        return max(billed, key=lambda one: one.began, default=None)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and why, in one sentence."""

    action: Action
    because: str
    billing: str = ""
    """Preferred billing of the machine that is rented: spot or on-demand."""


def decide(policy: Policy, observed: Observed) -> Decision:
    """Decide what is done next.

    A machine is rented only if the budget lasts until it can be ended again, and is ended while the budget still
    covers its end. So spend stays within the budget if two runs of the schedule in a row are never missed, and nobody
    else rents.
    """
    running = observed.machine in {Machine.RUNS, Machine.UNFINISHED}
    return _with_machine(policy, observed) if running else _without_machine(policy, observed)


def must_end(policy: Policy, observed: Observed) -> bool:
    """Whether an update that rents or uses a machine must be interrupted, because the budget is nearly used up."""
    current = observed.current
    if current is None or not policy.budget.limited:
        return False
    stop_at = used_up_at(policy.budget, observed.costs, current.usd_per_hour, observed.now)
    return stop_at < observed.now + to_end_s(policy, observed.every_s)


def wanted_billing(policy: Policy, costs: Costs, now: float) -> str:
    """The billing to prefer for a machine that is rented now."""
    if policy.billing != "spot" or policy.losses is None:
        return policy.billing
    since = _on_demand_since(costs.rentals)
    if since is not None:
        return "on-demand" if now < since + policy.back_after_s else "spot"
    return "on-demand" if losses_within(policy, costs.rentals, now) >= policy.losses else "spot"


def losses_within(policy: Policy, rentals: tuple[Rental, ...], now: float) -> int:
    """Spot machines that the provider took within the policy's time."""
    since = now - policy.within_s
    lost = [one for one in rentals if one.taken and one.billing == "spot"]
    return sum(one.ended is None or one.ended > since for one in lost)  # one that is stopped is billed on


def must_last_s(policy: Policy, every_s: float) -> float:
    """Seconds for which the budget must cover a running machine: two runs of the schedule, its drain and its end."""
    return every_s + to_end_s(policy, every_s)


def to_end_s(policy: Policy, every_s: float) -> float:
    """Seconds that are kept for the end of a machine: one run of the schedule, its drain, and what the cloud takes."""
    return every_s + policy.drain_timeout_s + TERMINATION_S


def _with_machine(policy: Policy, observed: Observed) -> Decision:
    current = observed.current
    price = policy.max_usd_per_hour if current is None else current.usd_per_hour
    stop_at = used_up_at(policy.budget, observed.costs, price, observed.now)
    reserve_s = must_last_s(policy, observed.every_s)
    if stop_at < observed.now + reserve_s:
        until = _again(policy, observed)
        return Decision(
            Action.STOP, f"the budget is used up at {_moment(stop_at)}, so the machine is ended; {until}"
        )
    if observed.machine is Machine.UNFINISHED:
        billing = policy.billing if current is None else current.billing
        because = "the last update was not finished, so it is continued"
        return Decision(Action.UP, because, billing)
    if current is None or current.billing == policy.billing or policy.losses is None:
        return Decision(Action.NOTHING, "the machine runs")
    return _on_demand(policy, observed, current)


def _on_demand(policy: Policy, observed: Observed, current: Rental) -> Decision:
    """Decide about a machine that replaced a spot machine."""
    if wanted_billing(policy, observed.costs, observed.now) != "spot":
        since = _on_demand_since(observed.costs.rentals) or current.began
        because = (
            f"the machine runs on demand; spot is tried again after {_moment(since + policy.back_after_s)}"
        )
        return Decision(Action.NOTHING, because)
    if not observed.spot_offered:
        because = "the machine runs on demand, and no spot machine is on offer to change to"
        return Decision(Action.NOTHING, because)
    if current.began + MINIMUM_RUN_S > observed.now:
        because = "the machine runs on demand and is within its minimum run time; then spot is tried again"
        return Decision(Action.NOTHING, because)
    changed = used_up_at(policy.budget, observed.costs, policy.max_usd_per_hour, observed.now)
    if changed < observed.now + MINIMUM_RUN_S + must_last_s(policy, observed.every_s):
        because = "the machine runs on demand, and the budget has not enough left to rent a spot machine"
        return Decision(Action.NOTHING, because)
    hours = policy.back_after_s / _HOUR_S
    because = f"after {hours:g} hours on demand a spot machine is on offer, so the server moves to one"
    return Decision(Action.REPLACE, because, "spot")


def _without_machine(policy: Policy, observed: Observed) -> Decision:
    if observed.machine is Machine.ENDED:
        because = "`pulumi destroy` ended the machine, so none is rented; run `pulumi up` to have one again"
        return Decision(Action.NOTHING, because)
    if observed.machine is Machine.NOT_NEEDED:
        return _not_needed(policy, observed)
    stop_at = used_up_at(policy.budget, observed.costs, policy.max_usd_per_hour, observed.now)
    needed_s = MINIMUM_RUN_S + must_last_s(policy, observed.every_s)
    if stop_at < observed.now + needed_s:
        enough = f"{needed_s / 60:.0f} minutes at up to ${policy.max_usd_per_hour:g}/h"
        because = f"the budget has not enough left for {enough}, so no machine is rented; {_again(policy, observed)}"
        # One that is stopped is billed on, so it is ended all the same.
        action = Action.STOP if observed.machine is Machine.UNUSABLE else Action.WAIT
        return Decision(action, because)
    billing = wanted_billing(policy, observed.costs, observed.now)
    action = Action.REPLACE if observed.machine is Machine.UNUSABLE else Action.UP
    because = f"{_LOSS[observed.machine]}, so another one is rented ({_why(policy, observed, billing)})"
    return Decision(action, because, billing)


def _not_needed(policy: Policy, observed: Observed) -> Decision:
    """Decide about a machine that powered off by itself. The cloud may bill it until it is ended."""
    current = observed.current
    if current is not None:
        stop_at = used_up_at(policy.budget, observed.costs, current.usd_per_hour, observed.now)
        if stop_at < observed.now + must_last_s(policy, observed.every_s):
            because = "the machine is powered off, and is ended because the budget is used up at"
            return Decision(Action.STOP, f"{because} {_moment(stop_at)}")
    because = (
        "the machine powered off by `expires` or `idle_stop`, or was ended after that, so none is rented"
    )
    return Decision(Action.NOTHING, f"{because}; run `pulumi up` to have one again")


_LOSS = {
    Machine.TAKEN: "the provider took the machine",
    Machine.ENDED_ELSEWHERE: "the machine was ended outside Pulumi",
    Machine.UNUSABLE: "the machine is stopped or failed and cannot be started",
    Machine.HELD: "there is no machine",
}


def _why(policy: Policy, observed: Observed, billing: str) -> str:
    if billing == policy.billing:
        return billing
    since = _on_demand_since(observed.costs.rentals)
    if since is not None:
        return f"on demand until {_moment(since + policy.back_after_s)}"
    lost = losses_within(policy, observed.costs.rentals, observed.now)
    losses = "a loss" if lost == 1 else f"{lost} losses"
    return f"on demand, after {losses} in {policy.within_s / _HOUR_S:g} hours"


def _on_demand_since(rentals: tuple[Rental, ...]) -> float | None:
    """Begin of the time on demand, if the last machine was rented on demand."""
    since = None
    for one in sorted(rentals, key=lambda rental: rental.began, reverse=True):
        if one.billing == "spot":
            break
        since = one.began
    return since


def _again(policy: Policy, observed: Observed) -> str:
    needed_s = MINIMUM_RUN_S + must_last_s(policy, observed.every_s)
    moment = fits_again_at(policy.budget, observed.costs, policy.max_usd_per_hour, observed.now, needed_s)
    if moment is None:
        return "no day of the next month has enough either; raise max_usd_per_day or max_usd_per_month"
    return f"the next one can be rented at {_moment(moment)}"


def _moment(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
