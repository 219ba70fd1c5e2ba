"""Faults while a stack is destroyed: in the API, at the machine, at its volume."""

import time
from dataclasses import dataclass

import reclaims
from crashes import kill_cloud
from harness import REPOSITORY
from rig import Outcome, Rig, Row, Running

MACHINE = "/api/deployments/[^/]+"
END = {"method": "DELETE", "path": MACHINE}
LOOK = {"method": "GET", "path": MACHINE}
DETACH = {"method": "POST", "path": "/api/volumes/.*/detach"}
DROP_DISK = {"method": "DELETE", "path": "/api/volumes/.*"}
# The error of the simulator for a volume that is attached.
ATTACHED = {"error": "Bad Request", "message": "Volume must be detached before it can be deleted"}
# Volumes are kept unless the program changes `keep`.
_DELETE_VOLUME = """
import runpy
import pulumi

def delete_volume(args):
    if args.type_ == "vllm:spheron:Volume":
        args.props["keep"] = False
    return pulumi.ResourceTransformResult(args.props, args.opts)

pulumi.runtime.register_stack_transform(delete_volume)
runpy.run_path({program!r}, run_name="__main__")
"""


@dataclass(frozen=True)
class DestroyRow(Row):
    """A fault while a running stack is destroyed; `left` is the number of machines after the first `destroy`."""

    start: str = "standing"
    with_volume: bool = False
    """Whether the volume is deleted with the stack."""

    def prove(self, rig: Rig) -> Outcome:
        """Order the fault and run `destroy`, again if it failed; nothing may exist that state does not know."""
        rig.begin(self)
        if self.with_volume:
            rig.run_program(_DELETE_VOLUME.format(program=str(REPOSITORY / "__main__.py")))
            rig.project.up()
            rig.run_program(None)
        rented = len(rig.records())
        rig.cloud.pass_minutes(30)
        self.order(rig)
        code, out, seconds = rig.watched(self, "destroy")
        message = rig.message(self, code, out)
        alive = [m["id"] for m in rig.machines()]
        assert len(alive) == (self.left if self.error_parts else 0), f"machines in the cloud: {alive}\n{out}"
        lost = self._ids_in_cloud(rig) - {r.get("id") for r in rig.project.resources()}
        assert not lost, f"not in state: {lost}\n{out}"
        again_seconds = None
        if self.error_parts:
            rig.heal()
            self.repair(rig)
            began = time.monotonic()
            rig.project.destroy()
            again_seconds = time.monotonic() - began
        assert [r["type"] for r in rig.project.resources() if r.get("id")] == [], "state still has resources"
        assert self._ids_in_cloud(rig) == set(), "resources are left in the cloud"
        assert len(_of(rig, "volumes")) == (0 if self.with_volume else 1)
        assert len(rig.records()) == rented, "a machine was rented"
        return Outcome(message, seconds, again_seconds)

    def _ids_in_cloud(self, rig: Rig) -> set[str]:
        """Return the ids of machines and keys, and of volumes that should be deleted, according to the simulator."""
        found = [*rig.machines(), *_of(rig, "sshKeys"), *(_of(rig, "volumes") if self.with_volume else ())]
        return {one["id"] for one in found}


def _of(rig: Rig, kind: str) -> list[dict]:
    found = rig.cloud.api("/_sim/state")[kind]
    return [one for one in found if one["name"].startswith(f"{rig.project.stack}-")]


def terminate(rig: Rig) -> None:
    """Terminate the machine, as a user does in the console."""
    (machine,) = rig.machines()
    rig.cloud.api(f"/api/deployments/{machine['id']}", "DELETE")


def freeze(rig: Rig) -> None:
    """Freeze the machine, so that it answers nothing."""
    (machine,) = rig.machines()
    rig.cloud.api(f"/_sim/pause/{machine['id']}", "POST")


def reclaim_while_draining(rig: Rig, running: Running) -> None:
    running.until("draining")
    rig.reclaim()


def kill_cloud_while_draining(rig: Rig, running: Running) -> None:
    running.until("draining")
    kill_cloud(rig)
    running.result()
    rig.cloud.up()


def restart_cloud_afterwards(rig: Rig, running: Running) -> None:
    running.result()
    rig.cloud.up()


def api(kind: str, **values: object):
    """Return a function that orders a fault of the rental API."""
    return lambda rig: rig.fault(kind, **values)


EACH = 3  # machine, volume and key: `destroy` reads all of them first
ENDING, TRY_AGAIN = "terminating instance", "try again in some minutes"
ROWS = (
    # -- the machine's DELETE -------------------------------------------------------------------------
    DestroyRow("429 with Retry-After on the DELETE", api("status", status=429, retry_after=2, **END)),
    DestroyRow(
        "429 on every DELETE",
        api("status", status=429, times=None, **END),
        (ENDING, "the cloud answered 429", "too many calls, wait and run it again"),
        left=1,
    ),
    DestroyRow("500 on the DELETE, before the act", api("status", status=500, **END)),
    DestroyRow("500 on the DELETE, after the act", api("status_after", status=500, **END)),
    DestroyRow(
        "500 on every DELETE",
        api("status", status=500, times=None, **END),
        (ENDING, "answered 500", TRY_AGAIN),
        left=1,
    ),
    DestroyRow(
        "403 on the DELETE",
        api("status", status=403, **END),
        (ENDING, "the cloud answered 403", "the key lacks the right"),
        left=1,
    ),
    DestroyRow("connection dropped on the DELETE, before the act", api("drop_before", **END)),
    DestroyRow("connection dropped on the DELETE, after the act", api("drop_after", **END)),
    DestroyRow("malformed JSON on the DELETE", api("malformed", **END)),
    DestroyRow("an HTML page with status 200 on the DELETE", api("html", **END)),
    DestroyRow(
        "an HTML page with status 200 on every DELETE",
        api("html", times=None, **END),
        (ENDING, "a web page titled", TRY_AGAIN),
        left=1,
    ),
    # Longer than the time-out of the client, which is 60 s.
    DestroyRow("the DELETE answered after 65 s", api("latency", seconds=65, **END)),
    # -- the machine ----------------------------------------------------------------------------------
    DestroyRow("ended in the cloud's console before", terminate),
    DestroyRow("reclaimed before", reclaims.reclaim_running),
    DestroyRow("reclaimed while it drains", reclaims.nothing, during=reclaim_while_draining),
    DestroyRow("powered off by its provider before", reclaims.power_off),
    DestroyRow("it answers nothing over SSH", freeze),
    DestroyRow("404 on a look at the machine, which is there", api("status", status=404, **LOOK)),
    # -- the volume, where it is deleted with the stack --------------------------------------------------
    DestroyRow(
        "500 on the disk's detach, before the act", api("status", status=500, **DETACH), with_volume=True
    ),
    DestroyRow(
        "400 on every detach of the disk",
        api("status", status=400, body={"error": "Bad Request"}, times=None, **DETACH),
        ("deleting the volume", "the cloud answered 400", ATTACHED["message"]),
        with_volume=True,
    ),
    DestroyRow(
        "the disk's DELETE refused once as still attached",
        api("status", status=400, body=ATTACHED, **DROP_DISK),
        with_volume=True,
    ),
    DestroyRow(
        "500 on the disk's DELETE, after the act",
        api("status_after", status=500, **DROP_DISK),
        with_volume=True,
    ),
    # -- the whole API --------------------------------------------------------------------------------
    DestroyRow(
        "every call's connection dropped",
        api("drop_before", times=None),
        ("the connection was lost", "then run it again"),
        left=1,
        errors=EACH,
        ci=True,
    ),
    DestroyRow(
        "an HTML page with status 200 on every read",
        api("html", times=None, method="GET"),
        ("a web page titled", TRY_AGAIN),
        left=1,
        errors=EACH,
    ),
    DestroyRow(
        "the local cloud down all the time",
        kill_cloud,
        ("can't be reached",),
        during=restart_cloud_afterwards,
        left=1,
        errors=EACH,
    ),
    DestroyRow(
        "the local cloud killed while the machine drains",
        reclaims.nothing,
        ("can't be reached",),
        during=kill_cloud_while_draining,
        left=1,
    ),
)
