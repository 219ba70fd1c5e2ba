"""What keeps a machine from running as long as it is meant to: its period, or its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import schedule
from pulumi_vllm.plan.lint import Finding
from pulumi_vllm.plan.recovery import MINIMUM_RUN_S, Policy, must_last_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.config import Deployment

# The schedule of docs/how-to/reconcile, in which GitHub may miss one of two runs.
_EVERY_S = 1800.0
_HOUR_S = 3600


def findings(deployment: Deployment) -> Iterator[Finding]:
    """The findings about the keys that end a machine."""
    yield from _period(deployment)
    yield from _budget(Policy.of(deployment))


def _period(deployment: Deployment) -> Iterator[Finding]:
    """A period that ends before the schedule does."""
    planned = deployment.schedule
    if deployment.expires is None or planned is None or planned.up is None or planned.down is None:
        return
    longest = schedule.longest_hours(schedule.parse(planned.up), schedule.parse(planned.down))
    hours = deployment.expires / _HOUR_S
    if hours < longest:
        yield Finding(
            "expires-within-schedule",
            "warning",
            f"server.expires: {hours:g} h end before server.schedule does, which leaves the machine up for as long as "
            f"{longest:g} h; write more than {longest:g}h, or leave expires out",
            "a period counts from the last `pulumi up`",
        )


def _budget(policy: Policy) -> Iterator[Finding]:
    """A budget of a day or month that is too small for one machine at the ceiling. The volume is billed too."""
    hours = (MINIMUM_RUN_S + must_last_s(policy, _EVERY_S)) / _HOUR_S
    needed = policy.max_usd_per_hour * hours
    budgets = {
        "max_usd_per_day": policy.budget.usd_per_day,
        "max_usd_per_month": policy.budget.usd_per_month,
    }
    for name, usd in budgets.items():
        if usd is not None and usd < needed:
            yield Finding(
                "budget-too-small",
                "warning",
                f"server.machine.{name}: ${usd:.2f} are less than the ${needed:.2f} that `pulumi-vllm reconcile` keeps "
                f"for a machine before it rents one ({hours:.1f} h at ${policy.max_usd_per_hour:.2f}/h), so it rents "
                f"none; raise {name}, or lower max_usd_per_hour",
                "the cloud ends no machine before 20 minutes, and a schedule of 30 minutes may miss a run",
            )
