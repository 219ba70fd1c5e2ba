"""Spot machines that are taken: what clients get, and how the server comes back without a person."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest
from harness import REGIONS, answers, wait_for
from streams import through_a_loss

SPOT = {"billing": "spot", "fallback": "on-demand"}
LOSSES, USD_PER_DAY, EVERY_MIN = 20, 0.1, 15
DAY_S = 86_400


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def reconciled(project, *words) -> dict:
    done = project.cli("reconcile", project.stack, "--json", *words)
    result = json.loads(done.stdout)
    # On the virtual clock an update takes half an hour, so machines are taken in the middle of it too.
    taken_meanwhile = any("was reclaimed by the provider" in error for error in result.get("errors", ()))
    assert done.returncode in {0, 2} or taken_meanwhile, done.stdout + done.stderr
    return result


def taken(project, machine: str) -> None:
    project.cloud.api(f"/_sim/reclaim/{machine}", "POST")
    wait_for(
        lambda: machine not in {one["id"] for one in project.cloud.machines()}, 120, "end of the machine"
    )


@pytest.mark.all
def test_no_stream_is_cut_without_an_error_in_ten_losses_with_notice(projects):
    project = projects("fake", concurrency=64, machine=SPOT)
    project.up()
    for number in range(10):
        machine = project.machine_id()
        outcomes = through_a_loss(
            lambda machine=machine: project.cloud.api(f"/_sim/reclaim/{machine}", "POST"),
            project.outputs(),
            seed=number,
        )
        assert sum(outcomes.streams.values()) == 50
        assert outcomes.streams["cut"] == 0, outcomes
        assert outcomes.streams["finished"] > 0, outcomes
        assert outcomes.attempts["503"] > 0, outcomes
        assert outcomes.attempts.keys() <= {"200", "503", "gone"}, outcomes
        result = reconciled(project)
        assert (result["done"], result["same_volume"], result["downloaded_bytes"]) == (True, True, 0), result


@pytest.mark.all
def test_a_killed_reconcile_is_continued_by_the_next_one(projects):
    project = projects("fake", machine=SPOT)
    project.up()
    taken(project, project.machine_id())
    command = [sys.executable, "-m", "pulumi_vllm.cli", "reconcile", project.stack]
    running = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stderr=subprocess.PIPE, text=True
    )
    assert "rented after" in running.stderr.readline()
    engine = json.loads(
        (project.folder / ".pulumi-vllm" / f"reconcile-{project.stack}.running.json").read_text()
    )
    running.kill()
    os.kill(engine["pid"], signal.SIGKILL)
    running.communicate()
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert "currently locked" in refused.stdout
    done = project.cli("reconcile", project.stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an earlier reconcile was killed and has left its lock, which is removed" in done.stdout
    assert len([one for one in project.cloud.machines() if one["name"].startswith(f"{project.stack}-")]) == 1
    assert reconciled(project)["because"] == "the machine runs"


@pytest.mark.all
def test_after_a_day_on_demand_the_server_moves_back_to_spot(projects):
    project = projects("fake", machine=SPOT | {"spot": {"losses": 1}})
    project.up()
    taken(project, project.machine_id())
    assert reconciled(project)["billing"] == "on-demand"
    on_demand = project.machine_id()
    assert "spot is tried again after" in reconciled(project)["because"]
    project.cloud.pass_minutes(25 * 60)
    result = reconciled(project)
    assert (result["action"], result["billing"], result["done"]) == ("replace", "spot", True), result
    assert (result["same_volume"], result["downloaded_bytes"]) == (True, 0)
    (machine,) = [one for one in project.cloud.machines() if one["name"].startswith(f"{project.stack}-")]
    assert (machine["instanceType"], machine["id"] != on_demand) == ("SPOT", True)
    assert set(project.changes()) == {"same"}


def spent_by_day(project, volume_usd_per_hour: float) -> dict[float, float]:
    """USD of each virtual day, from the cloud's own records of the stack's machines, and the volume."""
    state = project.cloud.api("/_sim/state")
    now = moment(state["now"])
    days: dict[float, float] = {}
    for one in state["deployments"]:
        if not one["name"].startswith(f"{project.stack}-"):
            continue
        began, ended = moment(one["createdAt"]), moment(one["stoppedAt"]) if one["stoppedAt"] else now
        day = began // DAY_S * DAY_S
        while day < ended:
            seconds = min(ended, day + DAY_S) - max(began, day)
            days[day] = days.get(day, 0.0) + seconds / 3600 * one["hourlyRate"]
            day += DAY_S
    return {day: usd + 24 * volume_usd_per_hour for day, usd in days.items()}


@pytest.mark.all
def test_twenty_losses_are_made_good_without_a_person_and_within_the_budget(projects, tmp_path):
    """On the virtual clock, with machines that are taken at random and without notice."""
    policy = {"losses": 3, "within_hours": 6, "back_after_hours": 6}
    machine = SPOT | {"spot": policy, "max_usd_per_day": USD_PER_DAY, "max_usd_per_hour": 0.02}
    project = projects("fake", region=REGIONS["block"], machine=machine)
    cloud = project.cloud
    project.up()
    options = {"spot_hazard_per_hour": 0.7, "creates_per_window": 1000, "requests_per_window": 100_000}
    cloud.api("/_sim/options", "POST", options)
    results = []
    try:
        while sum(result["machine_was"] == "taken" for result in results if result["done"]) < LOSSES:
            result = reconciled(project, "--every", str(EVERY_MIN))
            results.append(result)
            if result["done"] and result["action"] in {"up", "replace"}:
                assert (result["same_volume"], result["downloaded_bytes"]) == (True, 0), result
                assert answered_or_lost(project, tmp_path)
            # Without a machine nothing is spent but the volume, so the schedule may run less often here.
            # A run takes some virtual minutes by itself.
            cloud.pass_minutes(120 if result["action"] in {"wait", "stop"} else EVERY_MIN - 4)
    finally:
        cloud.api("/_sim/options", "POST", {"spot_hazard_per_hour": 0.0})
    (volume,) = [
        one for one in cloud.api("/_sim/state")["volumes"] if one["name"].startswith(f"{project.stack}-")
    ]
    days = spent_by_day(project, volume["hourlyRate"] * volume["sizeInGb"])
    assert max(days.values()) <= USD_PER_DAY, days
    done = [(result["action"], result["billing"]) for result in results]
    assert {("up", "spot"), ("up", "on-demand")} <= set(done), done
    assert "stop" in {action for action, _ in done}, done
    records = (project.folder / ".pulumi-vllm" / f"reconcile-{project.stack}.jsonl").read_text().splitlines()
    made_good = [one for one in map(json.loads, records) if one["machine_was"] == "taken" and one["done"]]
    phases = [one["phases_s"] for one in made_good]  # of another one the machine was taken again meanwhile
    assert all({"noticed", "rented", "booted", "weights", "ready"} <= one.keys() for one in phases)
    (tmp_path / "results.json").write_text(json.dumps({"days": days, "results": results}))


def answered_or_lost(project, folder) -> bool:
    """Whether a chat is answered, or the machine was taken since."""
    if answers(project, folder):
        return True
    return project.machine_id() not in {one["id"] for one in project.cloud.machines()}
