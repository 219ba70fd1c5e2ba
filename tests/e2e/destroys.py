"""What goes wrong while a stack is destroyed: on the way to the API, at the machine, at its disk."""

import time
from dataclasses import dataclass

import reclaims
from crashes import kill_cloud
from harness import REPOSITORY
from stand import Outcome, Row, Running, Stand

MACHINE = "/api/deployments/[^/]+"
END = {"method": "DELETE", "path": MACHINE}
LOOK = {"method": "GET", "path": MACHINE}
DETACH = {"method": "POST", "path": "/api/volumes/.*/detach"}
DROP_DISK = {"method": "DELETE", "path": "/api/volumes/.*"}
# As the simulator refuses a disk that is attached.
ATTACHED = {"error": "Bad Request", "message": "Volume must be detached before it can be deleted"}
# Disks are kept unless the program says otherwise.
_DISK_TOO = """
import runpy
import pulumi

def let_go(args):
    if args.type_ == "vllm:spheron:Volume":
        args.props["keep"] = False
    return pulumi.ResourceTransformResult(args.props, args.opts)

pulumi.runtime.register_stack_transform(let_go)
runpy.run_path({program!r}, run_name="__main__")
"""


@dataclass(frozen=True)
class Departure(Row):
    """A fault while a stack that stands is destroyed; `left` counts machines after the first `destroy`."""

    start: str = "standing"
    disk_too: bool = False
    """Whether the disk goes with the stack."""

    def prove(self, stand: Stand) -> Outcome:
        """Order the fault, run `destroy`; then `destroy` again, where it failed. Nothing may be left unknown."""
        stand.begin(self)
        if self.disk_too:
            stand.run_program(_DISK_TOO.format(program=str(REPOSITORY / "__main__.py")))
            stand.project.up()
            stand.run_program(None)
        rented = len(stand.records())
        stand.cloud.pass_minutes(30)
        self.order(stand)
        code, out, seconds = stand.watched(self, "destroy")
        said = stand.said(self, code, out)
        alive = [m["id"] for m in stand.machines()]
        assert len(alive) == (self.left if self.says else 0), f"machines at the cloud: {alive}\n{out}"
        lost = self._at_the_cloud(stand) - {r.get("id") for r in stand.project.resources()}
        assert not lost, f"not in state: {lost}\n{out}"
        again_seconds = None
        if self.says:
            stand.heal()
            self.mend(stand)
            began = time.monotonic()
            stand.project.destroy()
            again_seconds = time.monotonic() - began
        assert [r["type"] for r in stand.project.resources() if r.get("id")] == [], (
            "state still knows something"
        )
        assert self._at_the_cloud(stand) == set(), "something is left at the cloud"
        assert len(_of(stand, "volumes")) == (0 if self.disk_too else 1)
        assert len(stand.records()) == rented, "a machine was rented"
        return Outcome(said, seconds, again_seconds)

    def _at_the_cloud(self, stand: Stand) -> set[str]:
        """Ids of what bills or opens ports, by the simulator's own list; a disk that is kept is meant to be there."""
        found = [*stand.machines(), *_of(stand, "sshKeys"), *(_of(stand, "volumes") if self.disk_too else ())]
        return {one["id"] for one in found}


def _of(stand: Stand, kind: str) -> list[dict]:
    found = stand.cloud.api("/_sim/state")[kind]
    return [one for one in found if one["name"].startswith(f"{stand.project.stack}-")]


def ended(stand: Stand) -> None:
    """As a person does in the console."""
    (machine,) = stand.machines()
    stand.cloud.api(f"/api/deployments/{machine['id']}", "DELETE")


def silent(stand: Stand) -> None:
    """The machine is there and answers nothing."""
    (machine,) = stand.machines()
    stand.cloud.api(f"/_sim/pause/{machine['id']}", "POST")


def taken_while_it_drains(stand: Stand, running: Running) -> None:
    running.until("draining")
    stand.reclaim()


def cloud_dies_while_it_drains(stand: Stand, running: Running) -> None:
    running.until("draining")
    kill_cloud(stand)
    running.result()
    stand.cloud.up()


def back_afterwards(stand: Stand, running: Running) -> None:
    running.result()
    stand.cloud.up()


def api(kind: str, **values: object):
    """A fault of the rental API."""
    return lambda stand: stand.fault(kind, **values)


EACH = 3  # machine, disk and key: `destroy` looks at all of them before it does anything
ENDING, TRY_AGAIN = "terminating instance", "try again in some minutes"
ROWS = (
    # -- the machine's DELETE -------------------------------------------------------------------------
    Departure("429 with Retry-After on the DELETE", api("status", status=429, retry_after=2, **END)),
    Departure(
        "429 on every DELETE",
        api("status", status=429, times=None, **END),
        (ENDING, "the cloud answered 429", "too many calls, wait and run it again"),
        left=1,
    ),
    Departure("500 on the DELETE, before the act", api("status", status=500, **END)),
    Departure("500 on the DELETE, after the act", api("status_after", status=500, **END)),
    Departure(
        "500 on every DELETE",
        api("status", status=500, times=None, **END),
        (ENDING, "answered 500", TRY_AGAIN),
        left=1,
    ),
    Departure(
        "403 on the DELETE",
        api("status", status=403, **END),
        (ENDING, "the cloud answered 403", "the key lacks the right"),
        left=1,
    ),
    Departure("connection dropped on the DELETE, before the act", api("drop_before", **END)),
    Departure("connection dropped on the DELETE, after the act", api("drop_after", **END)),
    Departure("malformed JSON on the DELETE", api("malformed", **END)),
    Departure("an HTML page with status 200 on the DELETE", api("html", **END)),
    Departure(
        "an HTML page with status 200 on every DELETE",
        api("html", times=None, **END),
        (ENDING, "a web page titled", TRY_AGAIN),
        left=1,
    ),
    # One look more than the client's own patience of 60 s.
    Departure("the DELETE answered after 65 s", api("latency", seconds=65, **END)),
    # -- the machine ----------------------------------------------------------------------------------
    Departure("ended in the cloud's console before", ended),
    Departure("reclaimed before", reclaims.taken),
    Departure("reclaimed while it drains", reclaims.nothing, during=taken_while_it_drains),
    Departure("powered off by its provider before", reclaims.powered_off),
    Departure("it answers nothing over SSH", silent),
    Departure("404 on a look at the machine, which is there", api("status", status=404, **LOOK)),
    # -- the disk, where it goes with the stack -------------------------------------------------------
    Departure("500 on the disk's detach, before the act", api("status", status=500, **DETACH), disk_too=True),
    Departure(
        "400 on every detach of the disk",
        api("status", status=400, body={"error": "Bad Request"}, times=None, **DETACH),
        ("deleting the volume", "the cloud answered 400", ATTACHED["message"]),
        disk_too=True,
    ),
    Departure(
        "the disk's DELETE refused once as still attached",
        api("status", status=400, body=ATTACHED, **DROP_DISK),
        disk_too=True,
    ),
    Departure(
        "500 on the disk's DELETE, after the act", api("status_after", status=500, **DROP_DISK), disk_too=True
    ),
    # -- the whole API --------------------------------------------------------------------------------
    Departure(
        "every call's connection dropped",
        api("drop_before", times=None),
        ("the connection was lost", "then run it again"),
        left=1,
        sentences=EACH,
        ci=True,
    ),
    Departure(
        "an HTML page with status 200 on every read",
        api("html", times=None, method="GET"),
        ("a web page titled", TRY_AGAIN),
        left=1,
        sentences=EACH,
    ),
    Departure(
        "the local cloud down all the time",
        kill_cloud,
        ("can't be reached",),
        during=back_afterwards,
        left=1,
        sentences=EACH,
    ),
    Departure(
        "the local cloud killed while the machine drains",
        reclaims.nothing,
        ("can't be reached",),
        during=cloud_dies_while_it_drains,
        left=1,
    ),
)
