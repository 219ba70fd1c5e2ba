"""Crashes of the local cloud itself, in the middle of `up`: its process (API and hub), a guest, all of it."""

import json
import os
import signal
from pathlib import Path

from harness import wait_for
from stand import Row, Running, Stand


def slow_hub(stand: Stand) -> None:
    """So slow that a download outlasts what happens to it."""
    stand.cloud.hub("DELETE", "/_log")
    stand.cloud.hub(rate=100_000)


def downloading(stand: Stand) -> bool:
    """Whether bytes of the weights have left the hub since its log was emptied."""
    return any(row["sent"] for row in stand.cloud.hub("GET", "/_log") if row["path"].endswith(".safetensors"))


def kill_cloud(stand: Stand) -> None:
    """SIGKILL of the process that is API and hub."""
    process = stand.cloud.api("/_sim/health")["pid"]
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{process}/cmdline").exists() or not _words(process), 20, "its end")


def _words(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def kill_guest(stand: Stand, *names: str) -> None:
    """SIGKILL of a guest's container manager (nspawn), or of the process that stays with it (pid)."""
    (machine,) = [folder for folder in (stand.cloud.folder / "machines").iterdir() if folder.is_dir()]
    shim = json.loads((machine / "shim.json").read_text())
    for name in names:
        os.kill(shim[name], signal.SIGKILL)


def cloud_dies_while_deploying(stand: Stand, running: Running) -> None:
    wait_for(lambda: [m for m in stand.machines() if m["status"] == "deploying"], 120, "a machine")
    running.until("is deploying")
    kill_cloud(stand)
    running.result()
    stand.cloud.up()


def cloud_dies_in_the_create(stand: Stand, running: Running) -> None:
    running.until(r"renting .*US|renting .*Finland")
    wait_for(lambda: _asked(stand, "POST", "/api/deployments"), 60, "the create")
    kill_cloud(stand)
    running.result()
    stand.cloud.up()


def _asked(stand: Stand, method: str, path: str) -> bool:
    return any((row["method"], row["path"]) == (method, path) for row in stand.cloud.api("/_sim/log"))


def long_create(stand: Stand) -> None:
    """The answer takes ten seconds."""
    stand.cloud.api("/_sim/log", "DELETE")
    stand.profile(post_latency_s=600)


def cloud_dies_while_downloading(stand: Stand, running: Running) -> None:
    wait_for(lambda: downloading(stand), 120, "a download")
    kill_cloud(stand)
    stand.cloud.up()


def guest_dies_while_downloading(stand: Stand, running: Running) -> None:
    wait_for(lambda: downloading(stand), 120, "a download")
    kill_guest(stand, "nspawn")


def all_die_while_downloading(stand: Stand, running: Running) -> None:
    wait_for(lambda: downloading(stand), 120, "a download")
    kill_cloud(stand)
    kill_guest(stand, "pid", "nspawn")
    stand.cloud.up()


ROWS = (
    Row(
        "the local cloud killed while the machine deploys",
        lambda stand: stand.profile(running_after_s=1e9),
        ("can't be reached", "it exists and is billed"),
        during=cloud_dies_while_deploying,
        left=1,
    ),
    Row(
        "the local cloud killed in the create",
        long_create,
        ("No instance of this name is listed", "run the same command again, which adopts the instance"),
        during=cloud_dies_in_the_create,
    ),
    Row(
        "the local cloud and its hub killed while weights are fetched, started again at once",
        slow_hub,
        start="weights",
        during=cloud_dies_while_downloading,
    ),
    Row(
        "the guest killed while weights are fetched",
        slow_hub,
        ("was reclaimed by the provider; `pulumi up --refresh` rents another one",),
        start="weights",
        during=guest_dies_while_downloading,
        another=True,
    ),
    Row(
        "the local cloud, the guest and its keeper killed while weights are fetched, started again at once",
        slow_hub,
        start="weights",
        during=all_die_while_downloading,
    ),
)
