"""A test rig for faults: it brings a stack to the start of a fault, runs `up`, and checks the result."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from harness import REPOSITORY, LocalCloud, Project, block, wait_for

ALIVE = {"deploying", "running", "stopped"}
# The provider with block volumes: attaching one does not restart the machine, which saves seconds in each row.
PLACE = {"provider": "data-crunch", "region": "Finland 3"}
# A program that sets a shorter time-out for machines than an hour, by a transform with Pulumi's `customTimeouts`.
_SHORT_TIMEOUT = """
import runpy
import pulumi

def shorten(args):
    if args.type_ == "vllm:spheron:Instance":
        args.opts.custom_timeouts = pulumi.CustomTimeouts(create="12s", update="12s")
    return pulumi.ResourceTransformResult(args.props, args.opts)

pulumi.runtime.register_stack_transform(shorten)
runpy.run_path({program!r}, run_name="__main__")
"""
# The values without a fault of everything that faults change.
HEALTHY = {
    "post_latency_s": 20,
    "ip_visible_after_s": 30,
    "running_after_s": 60,
    "reclaim_notice_s": 0,
    "ssh_answers": True,
    "address_stays": True,
}
PRICES = {"Finland 3::cpu::2vcpu-8gb$": 0.01, "Finland 3::cpu::2vcpu-8gb::spot$": 0.005}
HUB = ("rate", "cut", "cuts", "corrupt", "auth", "gated", "status", "times", "code", "on", "retry_after")
# The engine prints the error of a resource that exists but is not ready as "1 error occurred:" and a bullet.
_ERROR = re.compile(
    r"^ *error: (?!update failed|resource .* was not successfully|\d+ errors? occurred)(.*)$|^ *\t\* (.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Row:
    """A fault: how it is ordered, the expected error, and how it is repaired."""

    name: str
    order: Callable[["Rig"], None]
    error_parts: tuple[str, ...] = ()
    """Parts of the error; empty if `up` succeeds."""
    start: str = "new"
    """blank: nothing exists. new: the volume exists, the machine does not. standing: the stack runs. weights: the stack
    runs, and the weights have to be downloaded again."""
    during: Callable[["Rig", "Running"], None] | None = None
    repair: Callable[["Rig"], None] = lambda _: None
    """What the user changes before the next `up`, after the fault is over."""
    again: Callable[["Rig"], tuple[str, ...]] = lambda _: ()
    """Arguments of the next `up`."""
    left: int = 0
    """Machines of the stack in the cloud after the failure."""
    another: bool = False
    """Whether the provider takes the machine, so that another one is rented."""
    machine: dict[str, object] = field(default_factory=dict)
    """Keys in `machine` of the stack file."""
    short_timeout: bool = False
    """Whether machines have 12 s to start, by `customTimeouts`."""
    ci: bool = False
    errors: int = 1
    """The number of resources that fail, because the engine reads several in parallel."""

    def prove(self, rig: "Rig") -> "Outcome":
        """Order the fault, run `up`, again if it failed, and check what must hold after every fault."""
        return rig.prove(self)


@dataclass(frozen=True)
class Outcome:
    """The result of a row."""

    message: str
    seconds: float
    again_seconds: float | None


class Running:
    """A running `up` or `destroy`, whose output can be awaited."""

    def __init__(self, project: Project, verb: str = "up"):
        self.lines: list[str] = []
        self._process = project.start(verb, "--yes", "--skip-preview")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line)

    def until(self, pattern: str, timeout: float = 180) -> None:
        """Wait until the output matches a pattern."""
        wait_for(lambda: re.search(pattern, self.text()) or self.ended(), timeout, f"{pattern} in the output")
        assert re.search(pattern, self.text()), self.text()

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        import signal

        self._process.send_signal(signal.SIGINT)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def text(self) -> str:
        return "".join(self.lines)

    def result(self, timeout: float = 600) -> tuple[int, str]:
        code = self._process.wait(timeout)
        self._thread.join(10)
        if self._process.stdout:
            self._process.stdout.close()
        return code, self.text()


class Rig:
    """A cloud and a stack on it, on which rows are tried one after the other."""

    def __init__(self, cloud: LocalCloud, folder: Path, *, stacks: str = "fault"):
        self.cloud, self.folder, self._stacks, self._count = cloud, folder, stacks, 0
        self._running_machine: dict[str, object] | None = None
        self._region: object = None  # a volume stays in its region, and so does its stack
        self.project = self._fresh()

    def _fresh(self) -> Project:
        self._count += 1
        name = f"{self._stacks}-{self._count}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Project(self.folder / name, self.cloud, self._block({}), name)

    def _block(self, machine: dict[str, object]) -> dict[str, object]:
        kept = {"region": PLACE["region"], "keep_failed": True}
        return block(machine=kept | machine, drain_timeout_s=2)

    # -- the cloud ------------------------------------------------------------------------------------
    def heal(self) -> None:
        """Clear all faults."""
        self.cloud.api("/_sim/fault", "DELETE")
        self.cloud.hub(**dict.fromkeys(HUB, ""))
        self.cloud.api(f"/_sim/profile/{PLACE['provider']}", "POST", HEALTHY)
        self.cloud.api("/_sim/profile/spheron-es", "POST", {"address_stays": True})
        for offer, price in PRICES.items():
            self.change_offer(offer, gone=False, maintenance=False, price=price)
        self.cloud.api("/_sim/options", "POST", {"balance": 10_000.0})
        for machine in self.machines():
            self.cloud.api(f"/_sim/unpause/{machine['id']}", "POST")

    def change_offer(self, pattern: str, **values: object) -> None:
        """Change the offers whose id matches a pattern."""
        self.cloud.api("/_sim/offer", "POST", {"offer": pattern, **values})

    def fault(self, kind: str, **values: object) -> None:
        self.cloud.api("/_sim/fault", "POST", {"kind": kind, **values})

    def profile(self, **values: object) -> None:
        self.cloud.api(f"/_sim/profile/{PLACE['provider']}", "POST", values)

    def records(self) -> list[dict]:
        """Return all machines that were ever rented for the stack."""
        found = self.cloud.api("/_sim/state")["deployments"]
        return [m for m in found if m["name"].startswith(f"{self.project.stack}-")]

    def machines(self) -> list[dict]:
        """Return the machines that are billed."""
        return [m for m in self.records() if m["status"] in ALIVE]

    def in_state(self) -> list[str]:
        return [
            r["id"] for r in self.project.resources() if r["type"] == "vllm:spheron:Instance" and r.get("id")
        ]

    def urn(self, token: str) -> str:
        (found,) = [r["urn"] for r in self.project.resources() if r["type"] == token]
        return found

    def reclaim(self) -> None:
        """Let the provider reclaim the machine."""
        (machine,) = wait_for(self.machines, 60, "machine")
        self.cloud.api(f"/_sim/reclaim/{machine['id']}", "POST")

    # -- before, during and after a row ---------------------------------------------------------------
    def begin(self, row: Row) -> None:
        """Bring the stack to the start of a row."""
        if row.start == "blank" or row.machine.get("region") != self._region:
            self.start_over()
            self._region = row.machine.get("region")
        self.heal()
        self.project.write(self._block(row.machine))
        self.project.block = self._block(row.machine)
        if row.start in {"blank", "new"}:
            if self.in_state():
                self.cloud.pass_minutes(30)
                self.project.destroy()
            return
        if self._running_machine != row.machine:
            self.project.up()
        self._running_machine = None
        if row.start == "weights":
            self.project.on_host("find /models '(' -name .manifest.json -o -name '*.safetensors' ')' -delete")

    def prove(self, row: Row) -> Outcome:
        """Run a row; see `Row.prove`."""
        self.begin(row)
        before, rented = self.in_state(), len(self.records())
        row.order(self)
        if row.short_timeout:
            self.run_program(_SHORT_TIMEOUT.format(program=str(REPOSITORY / "__main__.py")))
        code, out, seconds = self.watched(row)
        message = self.message(row, code, out)
        alive = [m["id"] for m in self.machines()]
        assert len(alive) == (row.left if row.error_parts else 1), f"machines in the cloud: {alive}\n{out}"
        assert set(alive) <= set(self.in_state()), f"not in state: {alive}\n{out}"
        self.run_program(None)
        again_seconds = None
        if row.error_parts:
            self.heal()
            row.repair(self)
            began = time.monotonic()
            self.project.pulumi("up", "--yes", "--skip-preview", *row.again(self))
            again_seconds = time.monotonic() - began
        (machine,) = self.machines()
        assert self.in_state() == [machine["id"]]
        expected = before or alive
        if expected and not row.another:
            assert expected == [machine["id"]], "the machine was replaced"
        due = (row.start in {"blank", "new"}) + row.another
        assert len(self.records()) - rented == due, "an unexpected machine was rented"
        assert set(self.project.changes()) == {"same"}
        self._check_gateway()
        self._running_machine = row.machine
        return Outcome(message, seconds, again_seconds)

    def _check_gateway(self) -> None:
        """Check that the gateway answers at the address and with the certificate in the outputs."""
        import requests

        outputs = self.project.outputs()
        authority = self.project.folder / "ca.pem"
        authority.write_text(outputs["ca_certificate"])
        bearer = {"Authorization": f"Bearer {outputs['api_key']}"}
        answer = requests.get(
            f"{outputs['endpoint']}/models", headers=bearer, verify=str(authority), timeout=30
        )
        assert outputs["model"] in [one["id"] for one in answer.json()["data"]]

    def run_program(self, program: str | None) -> None:
        """Use another program, or that of the repository if None."""
        folder = self.project.folder / "program"
        if program is not None:
            folder.mkdir(exist_ok=True)
            (folder / "__main__.py").write_text(program)
        file = self.project.folder / "Pulumi.yaml"
        described = yaml.safe_load(file.read_text())
        described["main"] = str(REPOSITORY if program is None else folder)
        file.write_text(yaml.safe_dump(described))

    def watched(self, row: Row, verb: str = "up") -> tuple[int, str, float]:
        """Run `up` or `destroy` with the fault; return exit code, output and seconds."""
        began = time.monotonic()
        running = Running(self.project, verb)
        if row.during:
            row.during(self, running)
        code, out = running.result()
        return code, out, time.monotonic() - began

    def message(self, row: Row, code: int, out: str) -> str:
        assert "Traceback" not in out, out
        assert "internal error" not in out, out
        if not row.error_parts:
            assert code == 0, out
            return ""
        assert code != 0, out
        errors = list(dict.fromkeys((plain or bullet).strip() for plain, bullet in _ERROR.findall(out)))
        assert len(errors) == row.errors, f"{len(errors)} errors: {errors}\n{out}"
        for words in row.error_parts:
            assert all(words in one for one in errors), f"{words!r} is not in each of\n{errors}\n{out}"
        return errors[0]

    def start_over(self) -> None:
        """Destroy this stack and continue with a new one."""
        self.end()
        self.project = self._fresh()

    def end(self) -> None:
        """Destroy the stack and its machines."""
        self.heal()
        self.cloud.pass_minutes(30)
        self.project.pulumi("cancel", "--yes", check=False)
        self.project.destroy(check=False)
        for machine in self.machines():
            self.cloud.api(f"/_sim/reclaim/{machine['id']}", "POST")
