"""Crashes of the local cloud during `up`: of its process (API and hub), of a guest, and of both."""

import json
import os
import signal
from pathlib import Path

from harness import wait_for
from rig import Rig, Row, Running


def slow_hub(rig: Rig) -> None:
    """Slow the hub down, so that the fault happens during a download."""
    rig.cloud.hub("DELETE", "/_log")
    rig.cloud.hub(rate=100_000)


def downloading(rig: Rig) -> bool:
    """Return whether the hub has sent bytes of the weights since its log was cleared."""
    return any(row["sent"] for row in rig.cloud.hub("GET", "/_log") if row["path"].endswith(".safetensors"))


def kill_cloud(rig: Rig) -> None:
    """Kill the process of the API and the hub with SIGKILL."""
    process = rig.cloud.api("/_sim/health")["pid"]
    os.kill(process, signal.SIGKILL)
    wait_for(
        lambda: not Path(f"/proc/{process}/cmdline").exists() or not _command_line(process), 20, "its end"
    )


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def kill_guest(rig: Rig, *names: str) -> None:
    """Kill the container manager of a guest (nspawn) or its supervisor (pid) with SIGKILL."""
    (machine,) = [folder for folder in (rig.cloud.folder / "machines").iterdir() if folder.is_dir()]
    shim = json.loads((machine / "shim.json").read_text())
    for name in names:
        os.kill(shim[name], signal.SIGKILL)


def kill_cloud_while_deploying(rig: Rig, running: Running) -> None:
    wait_for(lambda: [m for m in rig.machines() if m["status"] == "deploying"], 120, "a machine")
    running.until("is deploying")
    kill_cloud(rig)
    running.result()
    rig.cloud.up()


def kill_cloud_during_create(rig: Rig, running: Running) -> None:
    running.until(r"renting .*US|renting .*Finland")
    wait_for(lambda: _has_request(rig, "POST", "/api/deployments"), 60, "the create")
    kill_cloud(rig)
    running.result()
    rig.cloud.up()


def _has_request(rig: Rig, method: str, path: str) -> bool:
    return any((row["method"], row["path"]) == (method, path) for row in rig.cloud.api("/_sim/log"))


def long_create(rig: Rig) -> None:
    """Make the create take ten seconds."""
    rig.cloud.api("/_sim/log", "DELETE")
    rig.profile(post_latency_s=600)


def kill_cloud_while_downloading(rig: Rig, running: Running) -> None:
    wait_for(lambda: downloading(rig), 120, "a download")
    kill_cloud(rig)
    rig.cloud.up()


def kill_guest_while_downloading(rig: Rig, running: Running) -> None:
    wait_for(lambda: downloading(rig), 120, "a download")
    kill_guest(rig, "nspawn")


def kill_all_while_downloading(rig: Rig, running: Running) -> None:
    wait_for(lambda: downloading(rig), 120, "a download")
    kill_cloud(rig)
    kill_guest(rig, "pid", "nspawn")
    rig.cloud.up()


ROWS = (
    Row(
        "the local cloud killed while the machine deploys",
        lambda rig: rig.profile(running_after_s=1e9),
        ("can't be reached", "it exists and is billed"),
        during=kill_cloud_while_deploying,
        left=1,
    ),
    Row(
        "the local cloud killed in the create",
        long_create,
        ("No instance of this name is listed", "run the same command again, which adopts the instance"),
        during=kill_cloud_during_create,
    ),
    Row(
        "the local cloud and its hub killed while weights are fetched, started again at once",
        slow_hub,
        start="weights",
        during=kill_cloud_while_downloading,
    ),
    Row(
        "the guest killed while weights are fetched",
        slow_hub,
        ("was reclaimed by the provider; `pulumi up --refresh` rents another one",),
        start="weights",
        during=kill_guest_while_downloading,
        another=True,
    ),
    Row(
        "the local cloud, the guest and its keeper killed while weights are fetched, started again at once",
        slow_hub,
        start="weights",
        during=kill_all_while_downloading,
    ),
)
