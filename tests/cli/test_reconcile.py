"""`pulumi-vllm reconcile` against the simulated rental API, with a substitute for the Pulumi CLI."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.cli.stack_state import LastUpdate, StackStateError, machine_of, server_in
from pulumi_vllm.plan.names import physical_name
from pulumi_vllm.plan.recovery import Machine

DOUBLES = Path(__file__).parents[1] / "local_cloud" / "conftest.py"
SERVER = "urn:pulumi:prod::p::vllm:index:Server::llm"
INSTANCE = "urn:pulumi:prod::p::vllm:index:Server$vllm:spheron:Instance::llm-machine"
NAME = physical_name("prod", "p", "llm-machine", "identity")
POLICY = {"billing": "spot", "maxUsdPerHour": 0.05, "losses": 1, "withinS": 21600, "backAfterS": 86400}
# It does what the file `behaviour` says, writes the events of an update, and keeps the words of each call.
PULUMI = r"""
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([words, os.environ.get("PULUMI_VLLM_ON_DEMAND_FIRST")]) + "\n")
behaviour = json.loads((here / "behaviour").read_text())
if "export" in words:
    print((here / "state").read_text())
elif "history" in words:
    print((here / "history").read_text())
elif "cancel" in words:
    (here / "lock").unlink()
else:
    if (here / "lock").exists():
        lock = (here / "lock").read_text()
        sys.exit(f"error: the stack is currently locked by 1 lock(s).\n  file:///x.json: created by root@{lock} at 1")
    with open(words[words.index("--event-log") + 1], "w") as events:
        for event in behaviour.get("events", []):
            print(json.dumps(event), file=events, flush=True)
    if behaviour.get("waits"):
        time.sleep(60)
    if "after" in behaviour:
        (here / "state").write_text(json.dumps(behaviour["after"]))
    sys.exit(behaviour.get("code", 0))
"""


def state(instance=None, served=None, policy=POLICY, **more):
    """The state of a stack with a server, on a machine with this id."""
    resources = [{"type": "vllm:index:Server", "urn": SERVER, "inputs": {"recovery": policy}}]
    children = {"vllm:spheron:Volume": {"id": "v"}, "vllm:host:Weights": {"outputs": {"downloadedBytes": 0}}}
    if instance:
        inputs = {"gpu": "CPU", "count": 0, "provider": "data-crunch", "region": "Finland 3"}
        children["vllm:spheron:Instance"] = {"id": instance, "inputs": inputs} | more
    if served:
        children["vllm:host:Service"] = {"id": "s", "inputs": {"instanceId": served}}
    resources += [
        {"type": kind, "urn": INSTANCE if "Instance" in kind else f"{SERVER}${kind}", "parent": SERVER}
        | child
        for kind, child in children.items()
    ]
    return {"version": 3, "deployment": {"resources": resources}}


def done(kind, op="create"):
    return {"resOutputsEvent": {"metadata": {"op": op, "type": kind}}}


EVENTS = [
    done("vllm:spheron:Instance", "refresh"),
    {"diagnosticEvent": {"severity": "info", "message": f"rented {NAME} (id)\n"}},
    *map(done, ("vllm:spheron:Instance", "vllm:host:Weights", "vllm:host:Service")),
]


class Stack:
    """A stack at the simulated cloud."""

    def __init__(self, folder, api):
        self.folder, self.api = folder, api
        program = folder / "pulumi"
        program.write_text(f"#!{sys.executable}\n{PULUMI}")
        program.chmod(0o755)
        self.is_now(state())
        self.history()
        self.will()

    def is_now(self, document):
        (self.folder / "state").write_text(json.dumps(document))

    def history(self, kind="update", result="succeeded", message=""):
        (self.folder / "history").write_text(
            json.dumps([{"kind": kind, "result": result, "message": message}])
        )

    def will(self, **behaviour):
        (self.folder / "behaviour").write_text(json.dumps(behaviour))

    def calls(self, verb):
        lines = (self.folder / "calls").read_text().splitlines()
        return [(words, first) for words, first in map(json.loads, lines) if verb in words]

    def rented(self, kind="SPOT"):
        return self.api.running(self.api.offer(kind=kind), name=NAME)

    def lost(self):
        machine = self.rented()
        self.api.sim(f"reclaim/{machine}")
        self.api.until(lambda: self.api.status(machine) == "terminated-provider")
        return machine


@pytest.fixture(scope="module")
def doubles():
    spec = importlib.util.spec_from_file_location("doubles_of_localcloud_for_cli", DOUBLES)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stack(doubles, tmp_path, monkeypatch):
    with doubles.cloud_at(factor=60.0) as api:
        api.sim("profile/data-crunch", post_latency_s=0, running_after_s=0, ip_visible_after_s=0)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SPHERON_URL", api.url)
        monkeypatch.setenv("SPHERON_API_KEY", doubles.KEY)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        yield Stack(tmp_path, api)


def reconcile(capsys, *words):
    code = main(["reconcile", "prod", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_lost_machine_is_rented_again_and_recorded(stack, capsys):
    machine = stack.lost()
    stack.is_now(state(machine, machine))
    stack.will(events=EVENTS, after=state("new", "new"))
    code, result = reconcile(capsys)
    assert (code, result["action"], result["billing"], result["done"]) == (0, "up", "on-demand", True)
    ((words, first),) = stack.calls("up")
    assert first == INSTANCE, "the policy prefers on-demand after one loss"
    assert words[words.index("--message") + 1] == f"pulumi-vllm reconcile: {result['because']}"
    assert list(result["phases_s"]) == ["noticed", "rented", "booted", "weights", "ready"]
    (line,) = (stack.folder / ".pulumi-vllm" / "reconcile-prod.jsonl").read_text().splitlines()
    (rental,) = json.loads(line)["rentals"]
    assert (rental["id"], rental["billing"], rental["taken"]) == (machine, "spot", True)


def test_a_loss_that_only_the_record_knows_counts(stack, capsys, tmp_path):
    """The cloud lists no machine any more."""
    now = time.time()
    rental = {
        "id": "x",
        "billing": "spot",
        "usd_per_hour": 0.005,
        "began": now - 900,
        "ended": now - 60,
        "taken": True,
    }
    (tmp_path / "record").write_text(json.dumps({"rentals": [rental]}) + "\n")
    code, result = reconcile(capsys, "--dry-run", "--record", str(tmp_path / "record"))
    assert (code, result["action"], result["billing"]) == (0, "up", "on-demand")
    assert result["spent_usd"]["month"] > 0
    (tmp_path / "record").write_text("torn\n")
    assert main(["reconcile", "prod", "--record", str(tmp_path / "record")]) == 1
    assert "record:1: is not a record of reconcile; remove the line" in capsys.readouterr().err


def test_a_machine_that_serves_is_left_alone_and_a_dry_run_does_nothing(stack, capsys):
    machine = stack.rented()
    stack.is_now(state(machine, machine))
    assert reconcile(capsys)[1]["because"] == "the machine runs"
    stack.is_now(state(machine, "another"))
    assert reconcile(capsys, "--dry-run")[1]["action"] == "up"
    assert not stack.calls("up")
    assert not list(stack.folder.glob(".pulumi-vllm/*.jsonl"))


def test_a_machine_is_ended_for_the_budget_and_none_is_rented(stack, capsys):
    machine = stack.rented()
    stack.is_now(state(machine, machine, POLICY | {"maxUsdPerDay": 0.0001}))
    code, result = reconcile(capsys)
    assert (code, result["action"], result["done"]) == (2, "stop", True)
    ((words, _),) = stack.calls("destroy")
    assert words[words.index("--target") + 1] == INSTANCE
    assert "--target-dependents" in words
    stack.api.sim(f"reclaim/{machine}")
    stack.api.until(lambda: stack.api.status(machine) == "terminated-provider")
    code, result = reconcile(capsys)
    assert (code, result["action"], result["done"]) == (2, "wait", False)


def test_an_update_that_takes_too_long_for_the_budget_is_interrupted_and_the_machine_ended(
    stack, capsys, monkeypatch
):
    from pulumi_vllm.cli import stack_update
    from pulumi_vllm.plan.spending import day_of

    monkeypatch.setattr(stack_update, "_CHECK_EVERY_S", 0.2)
    # At noon, so that no new day begins.
    now = stack.api.store.clock.now()
    stack.api.sim("advance", seconds=day_of(now)[1] + 12 * 3600 - now)
    machine = stack.lost()
    # $0.005/h for 29 minutes; a machine needs 27: 20 minutes, two of the schedule, five for its end.
    policy = POLICY | {"maxUsdPerHour": 0.005, "maxUsdPerDay": 0.0024, "losses": 2}
    stack.is_now(state(machine, machine, policy))
    stack.will(waits=True, events=EVENTS[:2])

    def rented_and_slow():
        stack.rented()
        stack.is_now(state(policy=policy))  # the engine stores the machine when it is ready
        stack.api.sim("advance", seconds=24 * 60)

    slow = threading.Timer(1.0, rented_and_slow)
    slow.start()
    code, result = reconcile(capsys, "--every", "1")
    slow.join()
    assert (code, result["action"], result["done"]) == (2, "stop", True)
    assert stack.calls("up")
    assert not stack.calls("destroy"), "the state does not hold the machine"
    statuses = [one["status"] for one in stack.api.get("/api/deployments").json()]
    assert sorted(statuses) == ["terminated", "terminated-provider"]


def test_a_failed_update_is_code_1_with_its_errors(stack, capsys):
    machine = stack.lost()
    stack.is_now(state(machine, machine))
    stack.will(
        code=255, events=[{"diagnosticEvent": {"severity": "error", "message": "no machine is offered\n"}}]
    )
    code, result = reconcile(capsys)
    assert (code, result["done"], result["errors"]) == (1, False, ["no machine is offered"])


def test_a_lock_of_another_update_is_left(stack, capsys):
    machine = stack.lost()
    stack.is_now(state(machine, machine))
    (stack.folder / "lock").write_text("elsewhere (pid 1)")
    code, result = reconcile(capsys)
    assert (code, result["done"]) == (3, False)
    assert not stack.calls("cancel")


@pytest.mark.parametrize("runs", [False, True])
def test_a_lock_that_a_killed_reconcile_left_is_removed_unless_its_engine_runs(stack, capsys, runs):
    machine = stack.lost()
    stack.is_now(state(machine, machine))
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)  # pulumi"])
    if not runs:
        engine.kill()
        engine.wait()
    try:
        (stack.folder / "lock").write_text(f"{socket.gethostname()} (pid {engine.pid})")
        left = stack.folder / ".pulumi-vllm" / "reconcile-prod.running.json"
        left.parent.mkdir()
        left.write_text(json.dumps({"computer": socket.gethostname(), "pid": engine.pid}))
        assert reconcile(capsys)[0] == (3 if runs else 0)
        assert len(stack.calls("cancel")) == (0 if runs else 1)
        assert left.exists() is runs, "the next run must know the lock as well"
    finally:
        engine.kill()
        engine.wait()


def test_ctrl_c_ends_the_engine_too(stack, capsys):
    machine = stack.lost()
    stack.is_now(state(machine, machine))
    stack.will(waits=True, events=EVENTS[:2])
    interrupt = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    began = time.monotonic()
    assert main(["reconcile", "prod"]) == 130
    interrupt.join()
    assert time.monotonic() - began < 30, "the engine was waited for"
    assert "rented after" in capsys.readouterr().err


def test_two_runs_at_once_are_one(stack, capsys):
    import fcntl

    lock = stack.folder / ".pulumi-vllm" / "reconcile-prod.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, result = reconcile(capsys)
    assert (code, result["because"]) == (3, "another reconcile runs")


def test_a_wrong_command_line_or_no_key_says_what_to_do(stack, capsys, monkeypatch):
    assert main(["reconcile", "prod", "--every", "0"]) == 64
    assert "--every 0: write a number of minutes above 0" in capsys.readouterr().err
    monkeypatch.delenv("SPHERON_API_KEY")
    assert main(["reconcile", "prod"]) == 1
    assert "SPHERON_API_KEY is not set" in capsys.readouterr().err


def test_a_machine_of_ones_own_is_refused_before_a_key_is_asked_for(stack, capsys, monkeypatch):
    monkeypatch.delenv("SPHERON_API_KEY")
    own = state(policy=None)
    (server,) = [one for one in own["deployment"]["resources"] if one["type"] == "vllm:index:Server"]
    own["deployment"]["resources"].append({"type": "vllm:host:Machine", "parent": server["urn"]})
    stack.is_now(own)
    assert main(["reconcile", "prod"]) == 1
    said = capsys.readouterr().err
    assert "so reconcile rents none" in said
    assert "SPHERON_API_KEY" not in said


# -- what the state says -------------------------------------------------------------------------------------
DESTROYED = LastUpdate("destroy", "succeeded", "")
STOPPED_BY_US = LastUpdate("destroy", "succeeded", "pulumi-vllm reconcile: the budget is used up")
PAST_ITS_END = {"expiresS": 7200, "lastUp": "2026-01-01T00:00:00+00:00"}
FAILED = LastUpdate("update", "failed", "pulumi-vllm reconcile: the provider took the machine")


@pytest.mark.parametrize(
    ("document", "statuses", "last", "machine"),
    [
        (state("i", "i"), {"i": "running"}, None, Machine.RUNS),
        (state("i", "old"), {"i": "running"}, None, Machine.UNFINISHED),
        (state("i", "i"), {"i": "running"}, FAILED, Machine.UNFINISHED),
        (state("i", "i"), {"i": "terminated-provider"}, None, Machine.TAKEN),
        (state("i", "i"), {"i": "terminated"}, None, Machine.ENDED_ELSEWHERE),
        (state("i", "i"), {}, None, Machine.ENDED_ELSEWHERE),
        (state("i", "i"), {"i": "stopped"}, None, Machine.UNUSABLE),
        (state("i", "i", inputs={"idleStopS": 7200}), {"i": "stopped"}, None, Machine.NOT_NEEDED),
        (state("i", "i", inputs={"expiresS": 7200}), {"i": "terminated"}, None, Machine.NOT_NEEDED),
        (state("i", "i", inputs={"expiresS": 7200}), {"i": "terminated-provider"}, None, Machine.TAKEN),
        (state("i", "i", inputs={"expiresS": 7200}), {"i": "running"}, None, Machine.RUNS),
        (state("i", "i", inputs=PAST_ITS_END), {"i": "terminated-provider"}, None, Machine.NOT_NEEDED),
        (state("i", "i", inputs=PAST_ITS_END), {"i": "running"}, None, Machine.RUNS),
        (state("i", pendingReplacement=True), {"i": "terminated"}, FAILED, Machine.HELD),
        (state(), {"i": "deploying"}, None, Machine.UNFINISHED),
        (state(), {"i": "terminated"}, DESTROYED, Machine.ENDED),
        (state(), {"i": "terminated"}, STOPPED_BY_US, Machine.HELD),
        (state(), {"a": "terminated", "i": "terminated-provider"}, FAILED, Machine.TAKEN),
    ],
)
def test_what_became_of_the_machine(document, statuses, last, machine):
    assert machine_of(server_in(document), statuses, last) is machine


def test_a_stack_without_a_server_or_with_two_is_reported(stack, capsys):
    stack.is_now({"deployment": {"resources": []}})
    code, result = reconcile(capsys)
    assert (code, result["done"]) == (0, True)
    assert "nothing is deployed" in result["because"]
    two = state()
    two["deployment"]["resources"].append(two["deployment"]["resources"][0])
    with pytest.raises(StackStateError, match="has 2 servers"):
        server_in(two)
    with pytest.raises(StackStateError, match="holds no policy, as after an update with an earlier version"):
        server_in(state(policy=None))
    own = state(policy=None)
    (server,) = [one for one in own["deployment"]["resources"] if one["type"] == "vllm:index:Server"]
    own["deployment"]["resources"].append({"type": "vllm:host:Machine", "parent": server["urn"]})
    with pytest.raises(StackStateError, match=r"made by somebody else .* so reconcile rents none"):
        server_in(own)


# -- the documented schedules ------------------------------------------------------------------------------------
SCHEDULES = Path(__file__).parents[2] / "docs" / "how-to" / "reconcile"


@pytest.mark.parametrize("file", sorted(SCHEDULES.iterdir()), ids=lambda file: file.name)
def test_a_documented_schedule_runs_a_command_that_exists(file, stack, capsys):
    import shlex

    import yaml

    text = file.read_text()
    if file.suffix in {".yml", ".json"}:
        yaml.safe_load(text)
    found = [line for line in text.splitlines() if "pulumi-vllm reconcile" in line]
    if file.suffix == ".timer":
        assert not found
        return
    (line,) = found
    words = shlex.split(line.strip().strip('",').partition("pulumi-vllm reconcile")[2].replace("%i", "prod"))
    assert main(["reconcile", *words, "--dry-run"]) == 0
    assert "another one is rented" in capsys.readouterr().out


# -- what the cloud says -----------------------------------------------------------------------------------------
def instance(status, number="i", **more):
    from pulumi_vllm.spheron import models

    item = {"id": number, "name": NAME, "status": status, "instanceType": "SPOT", "hourlyRate": 2.0}
    return models.instance(item | {"createdAt": "2026-11-30T10:00:00Z"} | more, action="listing")


def rental(found, known=None, now=1_796_040_000.0, **more):
    from pulumi_vllm.cli.cloud_rentals import rentals

    (one,) = rentals([found] if found else [], known or {}, 9.0, now, **more)
    return one


def test_a_rental_ends_when_the_cloud_says_else_as_recorded_else_now():
    from pulumi_vllm.plan.spending import Rental

    ended = rental(instance("terminated-provider", stoppedAt="2026-11-30T10:30:00.500Z", totalCost=1.25))
    assert (ended.ended - ended.began, ended.taken, ended.usd) == (1800.5, True, 1.25)
    known = {"i": Rental("i", "spot", 2.0, ended.began, ended.began + 60)}
    assert rental(instance("terminated"), known).ended == ended.began + 60
    assert rental(instance("failed")).ended == 1_796_040_000.0
    assert rental(None, {"i": Rental("i", "spot", 2.0, 5.0)}).ended == 1_796_040_000.0
    assert rental(instance("running", hourlyRate=None)).usd_per_hour == 9.0


def test_a_spot_machine_that_its_provider_stopped_is_billed_and_counts_as_lost():
    stopped = rental(instance("stopped"))
    assert (stopped.ended, stopped.taken) == (None, True)
    assert not rental(instance("stopped"), ends_itself=True).taken
    # `reconcile` ends it before it rents another, which gives it another status.
    assert rental(instance("terminated", stoppedAt="2026-11-30T11:00:00Z"), {"i": stopped}).taken
