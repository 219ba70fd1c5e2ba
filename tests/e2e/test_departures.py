"""The end of a machine: not before its minimum run time, and replaced after a reclaim."""

import json
import os
import signal
import time

from harness import wait_for


def termination_requested(cloud) -> bool:
    return any("can-terminate" in row["path"] for row in cloud.api("/_sim/log"))


def test_ctrl_c_in_the_countdown_loses_nothing_and_reclaims_are_replaced(projects):
    machine = {"billing": "spot", "fallback": "on-demand", "spot": {"losses": 1}, "max_usd_per_day": 1}
    project = projects("fake", machine=machine)
    project.up()
    machine = project.machine_id()

    # The cloud refuses an early termination: destroy keeps serving, and Ctrl-C loses nothing.
    project.cloud.api("/_sim/options", "POST", {"minimum_runtime_min": 6000})
    project.cloud.api("/_sim/log", "DELETE")
    try:
        running = project.start("destroy", "--yes", "--skip-preview")
        wait_for(lambda: termination_requested(project.cloud), 120, "question whether the machine may end")
        time.sleep(3)  # until the response appears in the countdown
        assert running.poll() is None, "destroy did not wait"
        os.kill(running.pid, signal.SIGINT)
        out, _ = running.communicate(timeout=120)
    finally:
        project.cloud.api("/_sim/options", "POST", {"minimum_runtime_min": 20})
    assert "minimum run time" in out
    assert "still running, billed and in state" in out
    assert project.machine_id() == machine
    assert machine in {one["id"] for one in project.cloud.machines()}

    # After a reclaim, the next preview reports it. `reconcile` rents another machine, by the policy on demand, which
    # is no change of the program, and downloads nothing.
    project.up()
    assert project.cli("reconcile", project.stack).stdout == f"{project.stack}: the machine runs\n"
    project.cloud.api(f"/_sim/reclaim/{machine}", "POST")
    wait_for(lambda: machine not in {one["id"] for one in project.cloud.machines()}, 120, "reclaim")
    assert "was reclaimed by the provider" in project.pulumi("preview").stdout
    done = project.cli("reconcile", project.stack, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["because"] == (
        "the provider took the machine, so another one is rented (on demand, after a loss in 6 hours)"
    )
    assert project.machine_id() == result["machine"] != machine
    assert (result["same_volume"], result["downloaded_bytes"]) == (True, 0)
    assert list(result["phases_s"]) == ["noticed", "rented", "booted", "weights", "ready"]
    assert set(project.changes()) == {"same"}, "a machine on demand is a change of the program"
    (row,) = [one for one in project.cloud.machines() if one["id"] == result["machine"]]
    assert row["instanceType"] == "DEDICATED"
    assert project.outputs()["plan"]["billing"] == "on-demand"
