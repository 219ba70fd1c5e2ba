"""Files, weights and service on a host that answers from a script."""

import json
from types import SimpleNamespace

import pytest
from pulumi_vllm.host.errors import Unreachable
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.lifecycle import host_connection
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.resources import service, weights
from pulumi_vllm.provider.resources.files import Files
from pulumi_vllm.provider.resources.service import Service
from pulumi_vllm.provider.resources.weights import Weights

UNIT = "/etc/systemd/system/vllm.service"
DIRECTORY = "/models/weights/o/n/f"
FILES = {
    "files": {UNIT: "[Unit]\n", "/etc/pulumi-vllm/key": "key=@@secret:k@@\n"},
    "attributes": {UNIT: "0644 root:root", "/etc/pulumi-vllm/key": "0600 root:root"},
    "actions": {UNIT: "restart vllm.service", "/etc/pulumi-vllm/key": "reload haproxy.service"},
    "secrets": {"k": "hunter2"},
}


class Host:
    """A host: its facts, and what it prints for a script that contains a word."""

    def __init__(self, facts=None, **answers):
        self.observed, self.answers, self.ran, self.written = facts or {}, answers, [], []

    async def run(self, script, **_):
        self.ran.append(script)
        for word, answer in self.answers.items():
            if word in script:
                return Result(answer, "", 0)
        return Result("", "", 0)

    async def put(self, files):
        self.written = [file.path for file in files]
        return tuple(self.written)


class Call:
    """A request that records what it reports, on a host; None stands for an unreachable one."""

    name = "server-resource"

    def __init__(self, host):
        self.host, self.lines = host, []
        self.session = SimpleNamespace(hosts=lambda: self)

    async def progress(self, line):
        self.lines.append(line)

    warn = info = progress

    async def sleep(self, _seconds):
        return

    async def get(self, *_):
        if self.host is None:
            raise Unreachable("root@192.0.2.7: can't be reached")
        return self.host

    async def facts(self, host, **_):
        return Facts.parse({"probe": 1, **host.observed})

    def mark_changed(self, _host):
        return


CONNECTION = {"instanceId": "i", "connection": {"host": "192.0.2.7", "privateKey": "pem"}}


@pytest.mark.parametrize("resource", [Files(), Weights(), Service()], ids=lambda resource: resource.token)
async def test_an_unreachable_host_is_no_drift(resource):
    inputs = {**CONNECTION, **FILES, "directory": DIRECTORY}
    call = Call(None)
    reading = await resource.read(call, "id", {}, inputs)
    assert (reading.inputs, reading.outputs["reachable"]) == (inputs, False)
    assert call.lines == [
        "server-resource: root@192.0.2.7: can't be reached; showing the state of the last refresh"
    ]


async def test_drift_of_files_hides_secrets():
    live = {
        UNIT: {"text": "[Unit]\nNice=5\n", "mode": "0644", "owner": "root:root"},
        "/etc/pulumi-vllm/key": {"text": "key=another\n", "mode": "0600", "owner": "root:root"},
    }
    call = Call(Host({"files": live}))
    reading = await Files().read(call, "id", {}, {**CONNECTION, **FILES})
    assert reading.inputs["files"][UNIT] == "[Unit]\nNice=5\n"
    assert "another" not in reading.inputs["files"]["/etc/pulumi-vllm/key"]
    assert call.lines == [
        f"changed on the host: /etc/pulumi-vllm/key, {UNIT}; `pulumi up` restores the files"
    ]


async def test_changed_files_reload_their_units_but_do_not_restart_vllm():
    host = Host()
    await Files().create(Call(host), {**CONNECTION, **FILES})
    (script,) = host.ran
    assert script.splitlines() == [
        "systemctl daemon-reload",
        "if systemctl is-active -q haproxy.service; then systemctl reload haproxy.service; fi",
    ]


@pytest.fixture
def no_units(monkeypatch):
    """Units that finish at once."""

    async def finish(*_, **__):
        return {}

    monkeypatch.setattr(weights, "run_unit", finish)
    monkeypatch.setattr(service, "run_unit", finish)


@pytest.mark.usefixtures("no_units")
async def test_an_update_of_the_weights_drains_for_the_declared_time():
    manifest = json.dumps({"files": {"a": {"size": 3}, "b": {"size": 4}}})
    host = Host(**{".manifest.json": f"{'5' * 64}\n{manifest}\n"})
    new = {**CONNECTION, "directory": DIRECTORY, "drainTimeoutS": 3600}
    outputs = await Weights().update(Call(host), "id", {}, new)
    assert (outputs["files"], outputs["bytes"], outputs["manifestSha256"]) == (2, 7, "5" * 64)
    assert "drain --timeout 3600" in host.ran[0]
    assert "drain --undo" in host.ran[-1]


SERVICE = {**CONNECTION, "engineVersion": "0.26.0", "weightsRevision": "f" * 40, "servingDigest": "d"}


async def start(host, old=None):
    new = dict(SERVICE)
    await Service().check(None, new, None)
    return await Service().update(Call(host), "id", old or new, new)


def readiness(engine="active", crashes=0, check="activating", result=None):
    text = json.dumps(result) if result else ""
    return {"NRestarts": f"{engine}\n{crashes}\n{check}\n{text}"}


@pytest.mark.usefixtures("no_units")
async def test_a_passed_readiness_check_is_evidence():
    outputs = await start(Host(**readiness(result={"passed": True, "golden": 4})))
    assert outputs["evidence"]["readiness"] == {"passed": True, "golden": 4}


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize("changed", [True, False])
async def test_vllm_is_drained_and_restarted_only_for_other_inputs(changed):
    host = Host(**readiness(result={"passed": True}))
    old = {**SERVICE, "commandLine": "as-declared"} | ({"servingDigest": "old"} if changed else {})
    await start(host, old)
    stopped = [script for script in host.ran if script == "systemctl stop vllm.service"]
    drained = [script for script in host.ran if "drain --timeout 60" in script]
    assert (len(drained), len(stopped)) == (changed, changed)


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize(("state", "crashes"), [("failed", 0), ("activating", 2)])
async def test_a_crashing_vllm_is_stopped_and_its_journal_reported(state, crashes):
    host = Host(**readiness(state, crashes), journalctl="CUDA out of memory\n")
    with pytest.raises(UserError, match=r"vllm\.service failed: CUDA out of memory"):
        await start(host)
    assert host.ran[-1] == "systemctl stop vllm-readiness.service vllm.service"


@pytest.mark.usefixtures("no_units")
async def test_a_failed_readiness_check_reports_its_reason():
    host = Host(**readiness(result={"passed": False, "why": "golden tokens differ"}), journalctl="started\n")
    with pytest.raises(UserError, match="check failed: golden tokens differ; the log of vllm: started"):
        await start(host)


@pytest.mark.usefixtures("no_units")
async def test_a_readiness_check_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(service, "_READY_WITHIN_S", 0)
    with pytest.raises(UserError, match="not ready after 0 s; read `journalctl -u vllm`"):
        await start(Host(**readiness()))


async def test_stopped_units_are_drift_of_the_service():
    call = Call(Host({"units": {"haproxy.service": {"ActiveState": "active"}}}))
    reading = await Service().read(call, "id", {}, dict(SERVICE))
    assert reading.inputs["units"]["vllm.service"] == "missing"
    assert call.lines == [
        "vllm-firewall.service is missing; vllm.service is missing; `pulumi up` repairs this"
    ]


def test_a_connection_shows_no_key():
    connection = host_connection.Connection.from_values(None, {"connection": CONNECTION["connection"]})
    assert "pem" not in repr(connection)
