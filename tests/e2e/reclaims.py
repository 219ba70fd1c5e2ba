"""The provider takes the machine back, in each phase of `up`."""

from crashes import downloading, slow_hub
from harness import wait_for
from stand import Row, Running, Stand

TAKEN = "was reclaimed by the provider; `pulumi up --refresh` rents another one"


def nothing(_: Stand) -> None:
    """The fault comes later."""


def taken(stand: Stand) -> None:
    """Reclaim a machine that serves, and see it gone."""
    stand.reclaim()
    wait_for(lambda: not stand.machines(), 120, "end of the machine")


def powered_off(stand: Stand) -> None:
    """What some providers do with a spot machine instead of ending it."""
    (machine,) = stand.machines()
    stand.cloud.api(f"/_sim/reclaim/{machine['id']}?as=stopped", "POST")
    wait_for(lambda: stand.machines()[0]["status"] == "stopped", 120, "stopped")


def taken_at(pattern: str, after=lambda _: True):
    """Reclaim once `up` shows a line, and the cloud something."""

    def during(stand: Stand, running: Running) -> None:
        running.until(pattern)
        wait_for(lambda: after(stand), 60, f"what follows {pattern}")
        stand.reclaim()

    return during


def taken_when(status: str):
    """Reclaim once the machine has a status."""

    def during(stand: Stand, running: Running) -> None:
        wait_for(lambda: [m for m in stand.machines() if m["status"] == status], 120, status)
        stand.reclaim()

    return during


ROWS = (
    Row(
        "reclaimed while deploying",
        lambda stand: stand.profile(running_after_s=1e9),
        (TAKEN,),
        during=taken_when("deploying"),
        another=True,
    ),
    Row(
        "reclaimed while SSH is waited for",
        lambda stand: stand.profile(ssh_answers=False),
        (TAKEN,),
        during=taken_when("running"),
        another=True,
    ),
    Row(
        "reclaimed at the attach",
        nothing,
        (TAKEN,),
        during=taken_at(r"vllm:spheron:VolumeAttachment .*creating"),
        another=True,
    ),
    Row(
        "reclaimed while files are written",
        nothing,
        (TAKEN,),
        during=taken_at(r"vllm:host:Files .*creating"),
        another=True,
    ),
    Row(
        "reclaimed while weights are fetched",
        slow_hub,
        (TAKEN,),
        start="weights",
        during=taken_at(r"vllm:host:Weights .*updating", downloading),
        another=True,
    ),
    Row(
        "reclaimed while vLLM starts",
        nothing,
        (TAKEN,),
        during=taken_at(r"vllm:host:Service .*creating"),
        another=True,
    ),
)
