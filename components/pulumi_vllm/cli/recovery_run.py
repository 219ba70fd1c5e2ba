"""One run of `reconcile`: look at the state and the cloud, decide, run the update, record it."""

import contextlib
import functools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pulumi_vllm.cli import cloud_account, cloud_rentals, recovery_record, stack_state
from pulumi_vllm.cli.stack_state import MESSAGE_START, ServerState
from pulumi_vllm.cli.stack_update import RunningFile, Update, run_update
from pulumi_vllm.cli.terminal import TROUBLE, say
from pulumi_vllm.client.pulumi_cli import PulumiCliError, run_pulumi
from pulumi_vllm.plan.offer_choice import OfferRequest, matching
from pulumi_vllm.plan.recovery import (
    LAST_UP_VARIABLE,
    Action,
    Decision,
    Machine,
    Observed,
    decide,
    must_end,
)
from pulumi_vllm.plan.spending import Costs, Rental, day_of, month_of
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.models import Instance

NO_MACHINE, LOCKED = 2, 3
_ON_DEMAND_FIRST: Final = "PULUMI_VLLM_ON_DEMAND_FIRST"
_CANCEL_TIMEOUT_S: Final = 120.0  # for a distant backend; the CLI itself takes about a second


@dataclass(slots=True)
class Result:
    """What one run did."""

    stack: str
    action: str
    because: str
    code: int
    done: bool
    """Whether the server is as wanted now. False after a failure, a dry run, or without enough budget."""
    details: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return what --json prints."""
        shown = {"stack": self.stack, "action": self.action, "because": self.because, "done": self.done}
        return shown | self.details


class RecoveryRun:
    """One run for one stack."""

    def __init__(self, stack: str, every_s: float, record: Path, left: Path, *, quiet: bool) -> None:
        """Make a run.

        Args:
            stack: name of a stack of the project in this folder.
            every_s: time between two runs of the schedule.
            record: file of the records.
            left: file that remembers the process that holds the stack's lock.
            quiet: whether stdout is left to the JSON object.
        """
        self._stack, self._every_s, self._record, self._quiet = stack, every_s, record, quiet
        self._running = RunningFile(left)

    @functools.cached_property
    def _cloud(self) -> Spheron:
        """The cloud, which is not asked about a stack that reconcile refuses."""
        return cloud_account.connect()

    def decide_only(self) -> Result:
        """Decide, and do nothing."""
        server = stack_state.read_server(self._stack)
        if server is None:
            return self._nothing_deployed()
        observed = self._observe(server)
        return self._result(server, observed, self._decided(server, observed), 0, done=False)

    def reconcile(self) -> Result:
        """Look, decide, act and record. A failed update is a result with code 1, its errors are printed."""
        server = stack_state.read_server(self._stack)
        if server is None:
            return self._nothing_deployed()
        result, interrupted = self._reconcile(server)
        if interrupted:
            # The budget interrupted the update, so the machine is ended now.
            result, _ = self._reconcile(stack_state.read_server(self._stack) or server)
        return result

    def _reconcile(self, server: ServerState) -> tuple[Result, bool]:
        """Return the result, and whether the budget interrupted the update."""
        observed = self._observe(server)
        decision = self._decided(server, observed)
        if decision.action is Action.NOTHING:
            return self._result(server, observed, decision, 0, done=True), False
        if decision.action is Action.WAIT:
            return self._result(server, observed, decision, NO_MACHINE, done=False), False
        if decision.action is Action.STOP and server.instance_urn is None:
            # An interrupted update rented it, and the state does not hold it yet.
            if observed.current is not None:
                self._cloud.instances.terminate(observed.current.id)
            return self._result(server, observed, decision, NO_MACHINE, done=True), False
        return self._act(server, observed, decision)

    # -- looking ------------------------------------------------------------------------------------------
    def _observe(self, server: ServerState) -> Observed:
        last = stack_state.last_update(self._stack)
        ours = self._instances(server)
        now = self._now()
        rented = self._rentals(server, ours, now, recovery_record.known_rentals(self._record))
        volume = None if server.volume_id is None else self._cloud.volumes.get(server.volume_id)
        machine = stack_state.machine_of(server, {one.id: one.status for one in ours}, last)
        observed = Observed(machine, Costs(rented, cloud_rentals.volume_rental(volume)), now, self._every_s)
        current = observed.current
        if current is not None and current.billing != server.policy.billing:
            return replace(observed, spot_offered=self._spot_offered(server))
        return observed

    def _instances(self, server: ServerState) -> list[Instance]:
        listed = self._cloud.instances.list()
        return cloud_rentals.of_server(listed, server.stack, server.project, server.machine_name)

    @staticmethod
    def _rentals(
        server: ServerState, ours: list[Instance], now: float, known: dict[str, Rental]
    ) -> tuple[Rental, ...]:
        ceiling = server.policy.max_usd_per_hour
        return cloud_rentals.rentals(ours, known, ceiling, now, ends_itself=server.ends_itself)

    def _now(self) -> float:
        """Seconds since 1970 on the cloud's clock, which dates what it bills."""
        return self._cloud.transport.server_time or time.time()

    def _spot_offered(self, server: ServerState) -> bool:
        inputs = server.instance_inputs
        request = OfferRequest(
            gpus=(str(inputs["gpu"]), *(inputs.get("otherGpus") or ())),
            count=int(inputs["count"]),
            billings=("spot",),
            region=inputs.get("region"),
            provider=inputs.get("provider"),
            max_usd_per_hour=server.policy.max_usd_per_hour,
        )
        return bool(matching(self._cloud.offers.list(), request))

    def _decided(self, server: ServerState, observed: Observed) -> Decision:
        decision = decide(server.policy, observed)
        self._say(decision.because)
        return decision

    # -- acting ---------------------------------------------------------------------------------------------
    def _act(self, server: ServerState, observed: Observed, decision: Decision) -> tuple[Result, bool]:
        update = self._update(server, decision, observed.costs)
        if update.locked:
            say(f"{self._stack}: another update holds the stack's lock; the next run looks again")
            result = self._result(server, observed, decision, LOCKED, done=False)
            result.details["errors"] = update.errors
            return result, False
        after = stack_state.read_server(self._stack) or server
        done = update.code == 0
        code = (NO_MACHINE if decision.action is Action.STOP else 0) if done else TROUBLE
        result = self._result(after, observed, decision, code, done=done)
        result.details |= {
            "phases_s": _noticed(observed) | update.phases,
            "machine": after.instance_id,
            "volume": after.volume_id,
            "same_volume": after.volume_id == server.volume_id,
            "downloaded_bytes": after.downloaded_bytes,
            "errors": update.errors,
        }
        for error in update.errors:
            say(error)
        if done and decision.action is not Action.STOP:
            self._say(f"served again after {update.phases.get('ready', 0.0):.0f} s")
        ours = self._instances(after)
        known = {one.id: one for one in observed.costs.rentals}
        rented = self._rentals(after, ours, self._now(), known)
        recovery_record.append(self._record, {"time": self._now(), **result.document()}, rented)
        return result, update.stopped

    def _update(self, server: ServerState, decision: Decision, costs: Costs) -> Update:
        """Run the update; once more after removing a lock that an earlier run of ours has left."""
        common = (
            "--yes",
            "--skip-preview",
            "--stack",
            self._stack,
            "--message",
            MESSAGE_START + decision.because,
        )
        urn = server.instance_urn or ""
        words: tuple[str, ...] = ("up", "--refresh", *common)
        if decision.action is Action.REPLACE:
            words = (*words, "--replace", urn)
        elif decision.action is Action.STOP:
            words = ("destroy", *common, "--target", urn, "--target-dependents")
        # The stack file allows both. Which of them is tried first is no input of the machine, so a plain `pulumi up`
        # leaves it as it is.
        on_demand = decision.billing == "on-demand" and server.policy.billing == "spot"
        environment = {_ON_DEMAND_FIRST: server.machine_urn} if on_demand else {}
        if server.last_up:
            environment[LAST_UP_VARIABLE] = server.last_up

        def used_up() -> bool:
            if decision.action is Action.STOP or not server.policy.budget.limited:
                return False
            ours = self._instances(server)
            rented = self._rentals(server, ours, self._now(), {one.id: one for one in costs.rentals})
            present = Observed(Machine.RUNS, Costs(rented, costs.volume), self._now(), self._every_s)
            return must_end(server.policy, present)

        def run() -> Update:
            return run_update(
                words, self._running, environment=environment, on_phase=self._show_phase, must_stop=used_up
            )

        update = run()
        if update.locked and self._running.left_behind(update.locks):
            self._say("an earlier reconcile was killed and has left its lock, which is removed")
            with contextlib.suppress(PulumiCliError):  # the next update says what is wrong with the lock
                run_pulumi("cancel", "--yes", "--stack", self._stack, timeout_s=_CANCEL_TIMEOUT_S)
            update = run()
        return update

    # -- reporting --------------------------------------------------------------------------------------------
    def _say(self, sentence: str) -> None:
        if self._quiet:
            say(f"{self._stack}: {sentence}")
        else:
            print(f"{self._stack}: {sentence}", flush=True)

    def _show_phase(self, phase: str, seconds: float) -> None:
        say(f"{self._stack}: {phase} after {seconds:.0f} s")

    def _nothing_deployed(self) -> Result:
        because = "nothing is deployed, so there is nothing to bring back; run `pulumi up` first"
        self._say(because)
        return Result(self._stack, Action.NOTHING.value, because, 0, done=True, details={})

    def _result(
        self, server: ServerState, observed: Observed, decision: Decision, code: int, *, done: bool
    ) -> Result:
        now, budget = observed.now, server.policy.budget
        details = {
            "machine_was": observed.machine.value,
            "billing": decision.billing or None,
            "spent_usd": {
                "day": round(observed.costs.spent(*day_of(now), now), 4),
                "month": round(observed.costs.spent(*month_of(now), now), 4),
            },
            "budget_usd": {"day": budget.usd_per_day, "month": budget.usd_per_month},
        }
        return Result(self._stack, decision.action.value, decision.because, code, done, details)


def _noticed(observed: Observed) -> dict[str, float]:
    """Return the seconds between the loss of the last machine and this run."""
    newest = observed.costs.rentals[-1] if observed.costs.rentals else None
    if newest is None or newest.ended is None or not newest.taken:
        return {}
    return {"noticed": round(max(0.0, observed.now - newest.ended), 1)}
