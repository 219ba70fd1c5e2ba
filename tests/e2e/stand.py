"""A stack that faults are tried on: brought to where a fault begins, updated, and looked at afterwards."""

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
# The provider with disks: attaching does not restart its machines, which saves seconds in each row.
PLACE = {"provider": "data-crunch", "region": "Finland 3"}
# A program that gives machines less time than the hour they have: Pulumi's own `customTimeouts`, set by a transform.
_IMPATIENT = """
import runpy
import pulumi

def shorten(args):
    if args.type_ == "vllm:spheron:Instance":
        args.opts.custom_timeouts = pulumi.CustomTimeouts(create="12s", update="12s")
    return pulumi.ResourceTransformResult(args.props, args.opts)

pulumi.runtime.register_stack_transform(shorten)
runpy.run_path({program!r}, run_name="__main__")
"""
# What a fault may change, as it is when there is none.
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
# What the engine says of a thing that exists and is not ready: "1 error occurred:" and a bullet.
_ERROR = re.compile(
    r"^ *error: (?!update failed|resource .* was not successfully|\d+ errors? occurred)(.*)$|^ *\t\* (.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Row:
    """One fault: how it is ordered, what the person reads, what makes it go away."""

    switch: str
    order: Callable[["Stand"], None]
    says: tuple[str, ...] = ()
    """Parts of the one error; none: `up` comes through by itself."""
    start: str = "new"
    """blank: a stack that never was. new: its disk is there, no machine. standing: all is up. weights: all is up, and
    the weights have to be fetched again."""
    during: Callable[["Stand", "Running"], None] | None = None
    mend: Callable[["Stand"], None] = lambda _: None
    """What a person does before `up` again, beside that the fault is over."""
    again: Callable[["Stand"], tuple[str, ...]] = lambda _: ()
    """Arguments of that `up`."""
    left: int = 0
    """Machines of ours at the cloud after the failure."""
    another: bool = False
    """Whether the fault takes the machine, so that another one is rented."""
    machine: dict[str, object] = field(default_factory=dict)
    """Keys of the stack's `machine`."""
    impatient: bool = False
    """Whether machines get 12 s to come up, by `customTimeouts`."""
    ci: bool = False
    sentences: int = 1
    """How many resources say so: the engine looks at several at once."""

    def prove(self, stand: "Stand") -> "Outcome":
        """Order the fault, run `up`, check what must hold after every fault; then `up` again, where it failed."""
        return stand.prove(self)


@dataclass(frozen=True)
class Outcome:
    """What one row did."""

    said: str
    seconds: float
    again_seconds: float | None


class Running:
    """An `up` or `destroy` that is watched while it runs."""

    def __init__(self, project: Project, verb: str = "up"):
        self.lines: list[str] = []
        self._process = project.start(verb, "--yes", "--skip-preview")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line)

    def until(self, pattern: str, timeout: float = 180) -> None:
        """Until a line of its output shows it."""
        wait_for(lambda: re.search(pattern, self.text()) or self.ended(), timeout, f"{pattern} in the output")
        assert re.search(pattern, self.text()), self.text()

    def interrupt(self) -> None:
        """Ctrl-C."""
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


class Stand:
    """One cloud and one stack on it, for rows that come one after the other."""

    def __init__(self, cloud: LocalCloud, folder: Path, *, stacks: str = "fault"):
        self.cloud, self.folder, self._stacks, self._count = cloud, folder, stacks, 0
        self._proved: dict[str, object] | None = None
        self._region: object = None  # a disk stays where it is, and its stack with it
        self.project = self._fresh()

    def _fresh(self) -> Project:
        self._count += 1
        name = f"{self._stacks}-{self._count}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Project(self.folder / name, self.cloud, self._block({}), name)

    def _block(self, machine: dict[str, object]) -> dict[str, object]:
        return block(machine={"region": PLACE["region"]} | machine, drain_timeout_s=2)

    # -- the world ------------------------------------------------------------------------------------
    def heal(self) -> None:
        """No fault is due any more."""
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
        """Offers by a pattern of their ids."""
        self.cloud.api("/_sim/offer", "POST", {"offer": pattern, **values})

    def fault(self, kind: str, **values: object) -> None:
        self.cloud.api("/_sim/fault", "POST", {"kind": kind, **values})

    def profile(self, **values: object) -> None:
        self.cloud.api(f"/_sim/profile/{PLACE['provider']}", "POST", values)

    def records(self) -> list[dict]:
        """Every machine that was ever rented for the stack."""
        found = self.cloud.api("/_sim/state")["deployments"]
        return [m for m in found if m["name"].startswith(f"{self.project.stack}-")]

    def machines(self) -> list[dict]:
        """Those that bill."""
        return [m for m in self.records() if m["status"] in ALIVE]

    def in_state(self) -> list[str]:
        return [
            r["id"] for r in self.project.resources() if r["type"] == "vllm:spheron:Instance" and r.get("id")
        ]

    def urn(self, token: str) -> str:
        (found,) = [r["urn"] for r in self.project.resources() if r["type"] == token]
        return found

    def reclaim(self) -> None:
        """The provider takes the machine back."""
        (machine,) = wait_for(self.machines, 60, "machine")
        self.cloud.api(f"/_sim/reclaim/{machine['id']}", "POST")

    # -- before, during and after a row ---------------------------------------------------------------
    def begin(self, row: Row) -> None:
        """Bring the stack to where the row begins."""
        if row.start == "blank" or row.machine.get("region") != self._region:
            self.give_up()
            self._region = row.machine.get("region")
        self.heal()
        self.project.write(self._block(row.machine))
        self.project.block = self._block(row.machine)
        if row.start in {"blank", "new"}:
            if self.in_state():
                self.cloud.pass_minutes(30)
                self.project.destroy()
            return
        if self._proved != row.machine:
            self.project.up()
        self._proved = None
        if row.start == "weights":
            self.project.on_host("find /models '(' -name .manifest.json -o -name '*.safetensors' ')' -delete")

    def prove(self, row: Row) -> Outcome:
        """As `Row.prove` says."""
        self.begin(row)
        before, rented = self.in_state(), len(self.records())
        row.order(self)
        if row.impatient:
            self.run_program(_IMPATIENT.format(program=str(REPOSITORY / "__main__.py")))
        code, out, seconds = self.watched(row)
        said = self.said(row, code, out)
        alive = [m["id"] for m in self.machines()]
        assert len(alive) == (row.left if row.says else 1), f"machines at the cloud: {alive}\n{out}"
        assert set(alive) <= set(self.in_state()), f"not in state: {alive}\n{out}"
        self.run_program(None)
        again_seconds = None
        if row.says:
            self.heal()
            row.mend(self)
            began = time.monotonic()
            self.project.pulumi("up", "--yes", "--skip-preview", *row.again(self))
            again_seconds = time.monotonic() - began
        (machine,) = self.machines()
        assert self.in_state() == [machine["id"]]
        kept = before or alive
        if kept and not row.another:
            assert kept == [machine["id"]], "the machine was replaced"
        due = (row.start in {"blank", "new"}) + row.another
        assert len(self.records()) - rented == due, "a machine too many was rented"
        assert set(self.project.changes()) == {"same"}
        self._asked()
        self._proved = row.machine
        return Outcome(said, seconds, again_seconds)

    def _asked(self) -> None:
        """The gateway answers at the address and with the certificate that the stack says."""
        import requests

        outputs = self.project.outputs()
        authority = self.project.folder / "ca.pem"
        authority.write_text(outputs["ca_certificate"])
        bearer = {"Authorization": f"Bearer {outputs['api_key']}"}
        answer = requests.get(
            f"{outputs['endpoint']}/models", headers=bearer, verify=str(authority), timeout=30
        )
        assert [one["id"] for one in answer.json()["data"]] == [outputs["model"]]

    def run_program(self, program: str | None) -> None:
        """Another program than the repository's, or that one again."""
        folder = self.project.folder / "program"
        if program is not None:
            folder.mkdir(exist_ok=True)
            (folder / "__main__.py").write_text(program)
        file = self.project.folder / "Pulumi.yaml"
        described = yaml.safe_load(file.read_text())
        described["main"] = str(REPOSITORY if program is None else folder)
        file.write_text(yaml.safe_dump(described))

    def watched(self, row: Row, verb: str = "up") -> tuple[int, str, float]:
        """An update in which the row's fault happens: exit code, output, seconds."""
        began = time.monotonic()
        running = Running(self.project, verb)
        if row.during:
            row.during(self, running)
        code, out = running.result()
        return code, out, time.monotonic() - began

    def said(self, row: Row, code: int, out: str) -> str:
        assert "Traceback" not in out, out
        assert "internal error" not in out, out
        if not row.says:
            assert code == 0, out
            return ""
        assert code != 0, out
        said = list(dict.fromkeys((plain or bullet).strip() for plain, bullet in _ERROR.findall(out)))
        assert len(said) == row.sentences, f"{len(said)} sentences: {said}\n{out}"
        for words in row.says:
            assert all(words in one for one in said), f"{words!r} is not in each of\n{said}\n{out}"
        return said[0]

    def give_up(self) -> None:
        """Leave nothing of this stack and go on with another, blank one."""
        self.end()
        self.project = self._fresh()

    def end(self) -> None:
        """Destroy what there is."""
        self.heal()
        self.cloud.pass_minutes(30)
        self.project.pulumi("cancel", "--yes", check=False)
        self.project.destroy(check=False)
        for machine in self.machines():
            self.cloud.api(f"/_sim/reclaim/{machine['id']}", "POST")
