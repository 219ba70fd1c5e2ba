"""The provider reclaims the machine, in each phase of `up`."""

from crashes import downloading, slow_hub
from harness import wait_for
from rig import Rig, Row, Running

TAKEN = "was reclaimed by the provider; `pulumi up --refresh` rents another one"


def nothing(_: Rig) -> None:
    """Do nothing, because the fault happens later."""


def reclaim_running(rig: Rig) -> None:
    """Reclaim a running machine, and wait until it is gone."""
    rig.reclaim()
    wait_for(lambda: not rig.machines(), 120, "end of the machine")


def power_off(rig: Rig) -> None:
    """Power off the machine, as some providers do with a spot machine."""
    (machine,) = rig.machines()
    rig.cloud.api(f"/_sim/reclaim/{machine['id']}?as=stopped", "POST")
    wait_for(lambda: rig.machines()[0]["status"] == "stopped", 120, "stopped")


def reclaim_at(pattern: str, after=lambda _: True):
    """Return a function that reclaims once `up` prints a line and a condition holds."""

    def during(rig: Rig, running: Running) -> None:
        running.until(pattern)
        wait_for(lambda: after(rig), 60, f"what follows {pattern}")
        rig.reclaim()

    return during


def reclaim_when(status: str):
    """Return a function that reclaims once the machine has a status."""

    def during(rig: Rig, running: Running) -> None:
        wait_for(lambda: [m for m in rig.machines() if m["status"] == status], 120, status)
        rig.reclaim()

    return during


ROWS = (
    Row(
        "reclaimed while deploying",
        lambda rig: rig.profile(running_after_s=1e9),
        (TAKEN,),
        during=reclaim_when("deploying"),
        another=True,
    ),
    Row(
        "reclaimed while SSH is waited for",
        lambda rig: rig.profile(ssh_answers=False),
        (TAKEN,),
        during=reclaim_when("running"),
        another=True,
    ),
    Row(
        "reclaimed at the attach",
        nothing,
        (TAKEN,),
        during=reclaim_at(r"vllm:spheron:VolumeAttachment .*creating"),
        another=True,
    ),
    Row(
        "reclaimed while files are written",
        nothing,
        (TAKEN,),
        during=reclaim_at(r"vllm:host:Files .*creating"),
        another=True,
    ),
    Row(
        "reclaimed while weights are fetched",
        slow_hub,
        (TAKEN,),
        start="weights",
        during=reclaim_at(r"vllm:host:Weights .*updating", downloading),
        another=True,
    ),
    Row(
        "reclaimed while vLLM starts",
        nothing,
        (TAKEN,),
        during=reclaim_at(r"vllm:host:Service .*creating"),
        another=True,
    ),
)
