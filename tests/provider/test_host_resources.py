"""Files, weights and service on a host that answers from a script."""

import hashlib
import json

import pytest
from pulumi_vllm.host.errors import HostKeyChanged, Unreachable
from pulumi_vllm.plan import engine_locks
from pulumi_vllm.provider.lifecycle import host_connection, never_ready, readiness_check
from pulumi_vllm.provider.plugin.errors import Cancelled, UserError
from pulumi_vllm.provider.plugin.resource import Kind
from pulumi_vllm.provider.resources import service, weights
from pulumi_vllm.provider.resources.files import Files
from pulumi_vllm.provider.resources.service import Service
from pulumi_vllm.provider.resources.weights import Weights
from pulumi_vllm.render import layout, package_files
from scripted_host import (
    CONNECTION,
    DECLARED,
    DIRECTORY,
    FILES,
    SERVICE,
    UNIT,
    Call,
    Host,
    file,
    readiness,
    start,
)

RESOURCES = pytest.mark.parametrize(
    "resource", [Files(), Weights(), Service()], ids=lambda resource: resource.token
)


def inputs_of(resource, **more):
    return {name: value for name, value in {**DECLARED, **more}.items() if name in resource.inputs}


async def refreshed_and_checked(resource, call, **more):
    """Refresh after an `up`, then check the inputs of the same program, as a preview does."""
    up = inputs_of(resource)
    await resource.check(call, up, None)
    reading = await resource.read(call, "id", {}, up)
    declared = inputs_of(resource, **more)
    assert await resource.check(call, declared, reading.inputs) == []
    return reading, declared


@RESOURCES
async def test_a_host_that_was_not_observed_is_one_difference(resource):
    call = Call(None)
    reading, declared = await refreshed_and_checked(resource, call)
    assert reading.outputs["reachable"] is False
    assert reading.inputs["observed"] == "no: root@192.0.2.7: can't be reached"
    assert resource.compare(reading.inputs, declared) == {"observed": Kind.UPDATE}
    assert call.lines == [
        "server-resource: root@192.0.2.7: can't be reached; showing the state of the last refresh"
    ]


@RESOURCES
async def test_a_host_that_is_powered_off_is_named_without_a_warning(resource, monkeypatch):
    monkeypatch.setattr(Call, "instance_status", "stopped")
    call = Call(None)
    reading, _ = await refreshed_and_checked(resource, call)
    assert reading.inputs["observed"] == "no: the instance is stopped"
    assert call.lines == []


@RESOURCES
async def test_an_unreachable_host_is_no_difference_with_warn(resource):
    call = Call(None)
    reading, declared = await refreshed_and_checked(resource, call, unreachable="warn")
    assert resource.compare(reading.inputs, declared) == {}
    assert len(call.lines) == 1


@RESOURCES
async def test_unreachable_is_error_or_warn(resource):
    (failure,) = await resource.check(Call(None), inputs_of(resource, unreachable="ignore"), None)
    assert (failure.property, failure.reason) == ("unreachable", "must be error or warn")


@RESOURCES
async def test_a_probe_that_can_not_be_read_is_a_difference(resource):
    call = Call(Host())
    call.unreadable = True
    reading, declared = await refreshed_and_checked(resource, call)
    assert reading.inputs["observed"] == "no: root@192.0.2.7: the probe's output can't be read"
    assert resource.compare(reading.inputs, declared) == {"observed": Kind.UPDATE}
    with pytest.raises(
        UserError, match=r"^server-resource: root@192\.0\.2\.7: the probe's output can't be read$"
    ):
        await resource.update(call, "id", reading.inputs, declared)


@RESOURCES
@pytest.mark.parametrize("unreachable", ["error", "warn"])
async def test_a_changed_host_key_is_an_error_of_the_preview(resource, unreachable):
    call = Call(None)
    call.failure = HostKeyChanged("root@192.0.2.7: shows another host key than the pinned one")
    reading, declared = await refreshed_and_checked(resource, call, unreachable=unreachable)
    assert resource.compare(reading.inputs, declared) == {"observed": Kind.UPDATE}
    with pytest.raises(UserError, match=r"^server-resource: root@192\.0\.2\.7: shows another host key"):
        await resource.preview_update(call, reading.inputs, declared)


@RESOURCES
async def test_an_update_of_an_unreachable_host_fails_and_changes_nothing(resource):
    call = Call(None)
    reading, declared = await refreshed_and_checked(resource, call)
    await resource.preview_update(call, reading.inputs, declared)
    with pytest.raises(Unreachable, match="can't be reached"):
        await resource.update(call, "id", reading.inputs, declared)


AS_DECLARED = {
    "files": {
        UNIT: file("[Unit]\n", "0644"),
        "/etc/pulumi-vllm/key": file("key=hunter2\n", "0600"),
    },
    "units": {
        unit: {"ActiveState": "active", "UnitFileState": "enabled"}
        for unit in (
            "vllm.service",
            "haproxy.service",
            "vllm-firewall.service",
            "vllm-canary.timer",
            "vllm-lifetime.timer",
        )
    },
    "firewall": {"listed": True, "apart": True, "rules": "table", "declared": "table"},
    "manifests": {DIRECTORY: {"repository": "o/n", "revision": "f" * 40, "sha256": "5" * 64}},
}


@RESOURCES
async def test_an_update_only_looks_again_at_a_host_as_declared(resource):
    reading, declared = await refreshed_and_checked(resource, Call(None))
    host = Host(AS_DECLARED)
    outputs = await resource.update(Call(host), "id", {**reading.inputs, **reading.outputs}, declared)
    assert outputs["reachable"] is True
    assert (host.ran, host.written) == ([], [])


async def test_an_update_that_looks_again_repairs_what_differs():
    reading, declared = await refreshed_and_checked(Files(), Call(None))
    host = Host({"files": {UNIT: file("[Unit]\nNice=5\n", "0644")}})
    await Files().update(Call(host), "id", {**reading.inputs, **reading.outputs}, declared)
    assert UNIT in host.written


async def test_drift_of_files_hides_secrets():
    live = {
        UNIT: file("[Unit]\nNice=5\n", "0644"),
        "/etc/pulumi-vllm/key": file("key=another\n", "0600"),
    }
    call = Call(Host({"files": live}))
    reading = await Files().read(call, "id", {}, {**CONNECTION, **FILES})
    assert reading.inputs["files"][UNIT] == "[Unit]\nNice=5\n"
    assert "another" not in reading.inputs["files"]["/etc/pulumi-vllm/key"]
    assert call.lines == [
        f"changed on the host: /etc/pulumi-vllm/key, {UNIT}; `pulumi up` restores the files"
    ]


CANARY = f"{layout.PROGRAMS}/canary"


def with_program(live_text):
    """Return inputs with one program of the package, and a call whose host has `live_text` in its place."""
    (ours,) = [one for path, one in package_files.programs().items() if path == CANARY]
    declared = package_files.reference(hashlib.sha256(ours.encode()).hexdigest())
    inputs = {
        **CONNECTION,
        "files": {CANARY: declared},
        "attributes": {CANARY: "0755 root:root"},
        "actions": {},
    }
    call = Call(Host({"files": {CANARY: file(live_text(ours), "0755")}}))
    return inputs, call


async def test_a_program_of_the_package_is_declared_by_its_digest_and_written_as_its_text():
    inputs, call = with_program(lambda ours: ours)
    assert await Files().check(call, dict(inputs), None) == []
    host = Host()
    await Files().create(Call(host), inputs)
    assert host.texts == {CANARY: package_files.programs()[CANARY]}
    reading = await Files().read(call, "id", {}, inputs)
    assert reading.inputs["files"] == inputs["files"]
    assert call.lines == []


async def test_a_declared_text_that_a_file_of_the_package_has_too_is_no_difference():
    inputs, call = with_program(lambda ours: ours)
    inputs["files"] = {CANARY: package_files.programs()[CANARY]}
    reading = await Files().read(call, "id", {}, inputs)
    assert reading.inputs["files"] == inputs["files"]
    assert call.lines == []
    # On a host with another text of this package, as after another change, the line that differs is shown.
    inputs["files"] = {CANARY: inputs["files"][CANARY].replace("import json\n", "import yaml\n")}
    reading = await Files().read(call, "id", {}, inputs)
    assert "import json\n" in reading.inputs["files"][CANARY]
    assert call.lines == [f"changed on the host: {CANARY}; `pulumi up` restores the files"]


async def test_a_program_of_an_earlier_version_is_as_declared_until_somebody_edits_it():
    earlier, edited = "#!/usr/bin/python3\nearlier\n", "#!/usr/bin/python3\nedited\n"
    declared = package_files.reference(hashlib.sha256(earlier.encode()).hexdigest())
    for text, shown in (
        (earlier, declared),
        (edited, f"{declared}, a file of another version of pulumi-vllm, changed on the host\n"),
    ):
        inputs, call = with_program(lambda _, text=text: text)
        inputs["files"] = {CANARY: declared}
        reading = await Files().read(call, "id", {}, inputs)
        assert reading.inputs["files"] == {CANARY: shown}
        assert bool(call.lines) == (text == edited)


async def test_a_changed_program_shows_the_lines_that_differ_without_secrets():
    inputs, call = with_program(
        lambda ours: ours.replace("import json\n", "import json\nTOKEN = 'hf_abcdefghijklmnopqrst'\n")
    )
    reading = await Files().read(call, "id", {}, inputs)
    shown = reading.inputs["files"][CANARY]
    assert shown.startswith(f"{inputs['files'][CANARY]}, changed on the host:\n@@ ")
    assert "\n+TOKEN = " in shown
    assert "abcdefghijklmnopqrst" not in shown
    assert len(shown.splitlines()) == 3
    assert call.lines == [f"changed on the host: {CANARY}; `pulumi up` restores the files"]


async def test_a_file_of_another_version_of_the_package_is_refused():
    inputs = {
        **CONNECTION,
        "files": {CANARY: package_files.reference("0" * 64)},
        "attributes": {CANARY: "0755 root:root"},
    }
    (failure,) = await Files().check(Call(None), inputs, None)
    assert failure.property == f'files["{CANARY}"]'
    assert "another version of pulumi-vllm" in failure.reason


async def test_files_that_a_failed_update_put_back_are_named_as_such():
    observed = {"files": {UNIT: file("[Unit]\nold\n", "0644"), "/etc/pulumi-vllm/key": None}}
    call = Call(Host({**observed, "restored": [UNIT]}))
    state = inputs_of(Files()) | {"paths": [*FILES["files"]], "servingDigest": "of the new files"}
    reading = await Files().read(call, "id", state, inputs_of(Files()))
    assert call.lines == [
        f"restored on the host after an update that failed: {UNIT}",
        "changed on the host: /etc/pulumi-vllm/key; `pulumi up` restores the files",
    ]
    old = {**FILES, "files": reading.inputs["files"]}
    assert reading.outputs["servingDigest"] == (await Files().preview(call, old))["servingDigest"]


async def test_a_restored_lock_that_the_state_no_longer_names_is_observed():
    path, (lock, *_) = f"{layout.CONFIG}/requirements-3.10.txt", engine_locks.every()
    unit = {"ActiveState": "active", "record": {"time": 1, "files": {path: "1", UNIT: "2"}}}
    host = Host({"files": {path: file(lock, "0644")}, "restored": [path], "units": {"vllm.service": unit}})
    state = inputs_of(Files()) | {"paths": [*FILES["files"]]}
    reading = await Files().read(Call(host), "id", state, inputs_of(Files()))
    digest = hashlib.sha256(lock.encode()).hexdigest()
    assert reading.inputs["files"][path] == package_files.reference(digest)
    old = {**FILES, "files": reading.inputs["files"], "actions": {path: "restart vllm.service"}}
    assert reading.outputs["servingDigest"] == (await Files().preview(Call(host), old))["servingDigest"]


async def test_changed_files_reload_their_units_but_do_not_restart_vllm():
    host = Host()
    await Files().create(Call(host), {**CONNECTION, **FILES})
    (script,) = host.ran
    assert script.splitlines() == [
        "systemctl daemon-reload",
        "if systemctl is-active -q haproxy.service; then systemctl reload haproxy.service; fi",
    ]


async def test_a_restart_replaces_the_reload_of_the_same_unit():
    host = Host()
    added = {
        "/etc/a.cfg": "reload a.service",
        "/etc/a.unit": "restart a.service",
        "/etc/b": "reload b.service",
    }
    files = {
        "files": {**FILES["files"], **dict.fromkeys(added, "text")},
        "attributes": {**FILES["attributes"], **dict.fromkeys(added, "0644 root:root")},
        "actions": added,
    }
    await Files().create(Call(host), {**CONNECTION, **FILES, **files})
    (script,) = host.ran
    assert "systemctl restart a.service" in script
    assert "systemctl reload a.service" not in script
    assert "systemctl reload b.service" in script


@pytest.fixture
def no_units(monkeypatch):
    """Units that finish at once."""

    async def finish(*_, **__):
        return {}

    monkeypatch.setattr(weights, "run_unit", finish)
    monkeypatch.setattr(service, "run_unit", finish)


FAILURES = [UserError("the unit failed"), Unreachable("lost"), Cancelled("cancelled")]


def failing(unit, failure):
    async def run_unit(_call, _values, started, **_):
        if started.name == unit:
            raise failure
        return {}

    return run_unit


@pytest.mark.parametrize(
    ("before", "fetched", "after"), [({}, 7, 2), ({"downloads": 4}, 3, 5), ({"downloads": 4}, 0, 4)]
)
async def test_an_update_of_the_weights_takes_nothing_away_and_counts_downloads(
    monkeypatch, before, fetched, after
):
    async def finish(*_, **__):
        return {"bytes_fetched": fetched}

    monkeypatch.setattr(weights, "run_unit", finish)
    manifest = json.dumps({"files": {"a": {"size": 3}, "b": {"size": 4}}})
    host = Host(**{".manifest.json": f"{'5' * 64}\n{manifest}\n"})
    outputs = await Weights().update(Call(host), "id", before, {**CONNECTION, "directory": DIRECTORY})
    assert (outputs["files"], outputs["bytes"], outputs["manifestSha256"]) == (2, 7, "5" * 64)
    assert outputs["downloads"] == after
    assert not any("drain" in script or "systemctl" in script for script in host.ran)


async def test_a_preview_of_other_weights_cannot_know_whether_vllm_restarts():
    new = inputs_of(Weights())
    assert (await Weights().preview_update(Call(Host()), new, new))["downloads"] is None


@pytest.mark.parametrize("unit", ["vllm-preflight.service", "vllm-install.service"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_fails_before_the_restart_leaves_vllm_serving(monkeypatch, unit, failure):
    monkeypatch.setattr(service, "run_unit", failing(unit, failure))
    host = Host()
    with pytest.raises(type(failure), match=str(failure)):
        await start(host, {**SERVICE, "servingDigest": "old"})
    assert [script for script in host.ran if "rollback" not in script] == []


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize("step", ["drain --timeout", "systemctl stop vllm", "systemctl enable"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_restart_that_fails_starts_vllm_again_and_undoes_the_drain(step, failure):
    host = Host()
    host.failures[step] = failure
    with pytest.raises(type(failure), match=str(failure)):
        await start(host, {**SERVICE, "servingDigest": "old"})
    ran = [script for script in host.ran if "rollback.json" not in script]
    assert ran[-2] == "systemctl start --no-block vllm.service || true"
    assert "drain --undo" in ran[-1]


@pytest.mark.usefixtures("no_units")
async def test_a_passed_readiness_check_is_evidence():
    outputs = await start(Host(**readiness(result={"passed": True, "seconds": 50.2})))
    assert outputs["evidence"]["readiness"] == {"passed": True, "seconds": 50.2, "start_s": 50.2}


@pytest.mark.usefixtures("no_units")
async def test_a_check_of_a_running_vllm_keeps_how_long_its_start_took():
    old = {**SERVICE, "commandLine": "as-declared", "evidence": {"readiness": {"start_s": 50.2}}}
    host = Host(**readiness(result={"passed": True, "seconds": 1.5}, before="active"))
    outputs = await start(host, old)
    assert outputs["evidence"]["readiness"]["start_s"] == 50.2


@pytest.mark.parametrize("name", ["servingDigest", "weightsRevision", "units"])
async def test_a_preview_says_that_vllm_restarts_and_how_long_it_took_the_last_time(name):
    new, call = dict(SERVICE), Call(Host())
    await Service().check(call, new, None)
    old = {**new, name: "old", "evidence": {"readiness": {"start_s": 50.2}}}
    await Service().preview_update(call, old, new)
    expected = (
        "server-resource: `pulumi up` restarts vLLM. New requests get 503 with Retry-After while the running ones "
        "finish (at most 60 s) and vLLM starts (50 s the last time)"
    )
    assert call.lines == ([] if name == "units" else [expected])


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize("name", [None, "servingDigest", "weightsRevision", "weightsDownloads"])
async def test_vllm_is_drained_and_restarted_only_for_other_inputs(name):
    host = Host(**readiness(result={"passed": True}))
    old = {**SERVICE, "commandLine": "as-declared"} | ({name: "old"} if name else {})
    await start(host, old)
    stopped = [script for script in host.ran if script == "systemctl stop vllm.service"]
    drained = [script for script in host.ran if "drain --timeout 60" in script]
    assert (len(drained), len(stopped)) == (bool(name), bool(name))


ENDED = {"passed": False, "why": "vllm.service ended 2 times; see the journal", "engine_ended": True}


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize(
    ("before", "old", "stops"),
    [
        ("inactive", SERVICE, True),
        ("active", {**SERVICE, "commandLine": "as-declared"}, False),
        ("active", {**SERVICE, "servingDigest": "old"}, True),
    ],
)
async def test_a_vllm_that_ends_is_reported_by_its_journal_and_stopped_unless_it_served_before(
    before, old, stops
):
    answers = readiness("failed", result={**ENDED, "invocation": "abc"}, before=before)
    host = Host(**answers, journalctl="CUDA out of memory\n")
    with pytest.raises(
        UserError,
        match=r"vllm\.service failed: CUDA out of memory \(vllm\.service ended 2 times\); vLLM was not ready on",
    ):
        await start(host, old)
    assert any("invocation=abc" in script for script in host.ran)
    assert ("systemctl stop vllm-readiness.service vllm.service" in host.ran) == stops


@pytest.mark.usefixtures("no_units")
async def test_a_failed_readiness_check_reports_its_reason():
    host = Host(**readiness(result={"passed": False, "why": "golden tokens differ"}), journalctl="started\n")
    with pytest.raises(UserError, match="check failed: golden tokens differ; the log of vllm: started"):
        await start(host)


@pytest.mark.usefixtures("no_units")
async def test_a_readiness_check_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(readiness_check, "_RESULT_AFTER_S", 0)
    with pytest.raises(UserError, match="not ready after 0 s; read `journalctl -u vllm`"):
        await start(Host(**readiness()), readyTimeoutS=0)


async def test_stopped_units_are_drift_of_the_service():
    gateway = {"ActiveState": "active", "UnitFileState": "disabled"}
    missing = [
        f"{unit} is missing"
        for unit in ("vllm-canary.timer", "vllm-firewall.service", "vllm-lifetime.timer", "vllm.service")
    ]
    call = Call(Host({"units": {"haproxy.service": gateway}}))
    reading = await Service().read(call, "id", {}, dict(SERVICE))
    assert reading.inputs["units"]["vllm.service"] == "missing"
    assert call.lines == [
        f"{'; '.join(missing)}; `pulumi up` repairs this",
        "server-resource: haproxy.service at boot is disabled, declared enabled; `pulumi up` enables it",
    ]


async def test_a_rewritten_manifest_is_a_difference_until_the_hub_was_asked_again():
    new = inputs_of(Weights())
    await Weights().check(Call(None), new, None)
    state = {**new, "manifestSha256": "4" * 64}
    call = Call(Host(AS_DECLARED))
    reading = await Weights().read(call, "id", state, new)
    path = f"{DIRECTORY}/.manifest.json"
    assert Weights().compare(reading.inputs, new) == {f'differences["{path}"]': Kind.DELETE}
    (line,) = call.lines
    assert line == (
        f"server-resource: {path} lists other files or hashes than at the last `pulumi up`; `pulumi up` asks the model "
        "hub again and hashes every file"
    )
    assert reading.outputs["manifestSha256"] == "4" * 64


@pytest.mark.usefixtures("no_units")
async def test_a_rewritten_manifest_is_removed_before_the_download():
    text = json.dumps({"files": {"a": {"size": 3}}})
    host = Host(AS_DECLARED, sha256sum=f"{'5' * 64}\n{text}\n")
    new = inputs_of(Weights(), differences={})
    old = {**new, "manifestSha256": "4" * 64, "differences": {f"{DIRECTORY}/.manifest.json": "x"}}
    outputs = await Weights().update(Call(host), "id", old, new)
    assert host.ran[0] == f"rm -f {DIRECTORY}/.manifest.json"
    assert outputs["manifestSha256"] == "5" * 64


@pytest.mark.usefixtures("no_units")
async def test_an_update_repairs_differences_and_refuses_what_is_left():
    full = {**AS_DECLARED, "disk_free": {"/models": 0}}
    host = Host(
        {**full, "firewall": {"listed": True, "declared": "table"}}, **readiness(result={"passed": True})
    )
    call, new = Call(host), dict(SERVICE)
    await Service().check(call, new, None)
    reading = await Service().read(call, "id", {}, dict(new))
    assert sorted(reading.inputs["differences"]) == ["firewall", "free space on /models"]
    with pytest.raises(UserError, match=r"free space on /models is 0 MiB, and 64 MiB are needed"):
        await Service().update(call, "id", reading.inputs, new)
    assert host.ran[0] == f"cat {layout.FIREWALL_RULES}"


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize("unreachable", ["error", "warn"])
async def test_a_firewall_that_can_not_be_compared_fails_no_update(unreachable):
    """It is never shown as unchanged, unless the stack file says that a warning is enough."""
    apart = {"listed": True, "apart": False, "rules": "table"}
    host = Host({**AS_DECLARED, "firewall": apart}, **readiness(result={"passed": True}))
    call, new = Call(host), {**SERVICE, "unreachable": unreachable}
    await Service().check(call, new, None)
    reading = await Service().read(call, "id", {}, dict(new))
    assert reading.outputs["reachable"]
    assert reading.inputs["observed"].startswith("no: the firewall was not compared with its rules")
    assert reading.inputs["differences"] == {}
    wanted = {**SERVICE, "unreachable": unreachable}
    await Service().check(call, wanted, reading.inputs)
    changed = Service().compare(reading.inputs, wanted)
    assert set(changed) == ({"observed"} if unreachable == "error" else set())
    outputs = await Service().update(call, "id", {**reading.inputs, **reading.outputs}, wanted)
    assert outputs["reachable"]


ACCESS = {"account ubuntu": "uid 1000, shell /bin/bash"}
MALLORY = {"account mallory": "uid 0, shell /bin/sh"}


@pytest.mark.usefixtures("no_units")
async def test_a_change_of_access_is_refused_until_another_text_accepts_it():
    host = Host({**AS_DECLARED, "access": ACCESS | MALLORY}, **readiness(result={"passed": True}))
    call, new = Call(host), dict(SERVICE)
    await Service().check(call, new, None)
    reading = await Service().read(call, "id", {"hostAccess": ACCESS}, dict(new))
    assert list(reading.inputs["differences"]) == ["account mallory"]
    old = {**reading.inputs, **reading.outputs}
    with pytest.raises(
        UserError, match=r"account mallory is new since the last `pulumi up`: uid 0, shell /bin/sh"
    ):
        await Service().update(call, "id", old, new)
    outputs = await Service().update(call, "id", old, {**new, "accessAccepted": "one of us"})
    assert outputs["hostAccess"] == ACCESS | MALLORY


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize(("machine", "accepted"), [("own-1", True), ("i-1", False)])
async def test_ports_are_forwarded_already_on_a_machine_of_somebody_else(machine, accepted):
    firewall = {**(AS_DECLARED.get("firewall") or {}), "forwarding": ["tcp dport 80 dnat to 172.17.0.2:80"]}
    host = Host({**AS_DECLARED, "firewall": firewall}, **readiness(result={"passed": True}))
    call, new = Call(host), {**SERVICE, "instanceId": machine}
    await Service().check(call, new, None)
    _, created = await Service().create(call, new)
    assert ("forwarded ports" in created["hostAccess"]) == accepted


@pytest.mark.usefixtures("no_units")
async def test_access_is_kept_in_the_state_of_an_earlier_version_and_by_another_update():
    host = Host({**AS_DECLARED, "access": ACCESS}, **readiness(result={"passed": True}))
    call, new = Call(host), dict(SERVICE)
    await Service().check(call, new, None)
    reading = await Service().read(call, "id", {}, dict(new))
    assert reading.outputs["hostAccess"] == ACCESS
    host.observed["access"] = ACCESS | MALLORY  # since that look
    old = {**new, **reading.outputs, "engineVersion": "0.25.0"}
    assert (await Service().update(call, "id", old, new))["hostAccess"] == ACCESS


@pytest.mark.usefixtures("no_units")
async def test_commands_of_the_program_may_still_add_an_account_after_a_create():
    host = Host({**AS_DECLARED, "access": ACCESS}, **readiness(result={"passed": True}))
    call, new = Call(host), dict(SERVICE)
    await Service().check(call, new, None)
    assert (await Service().create(call, new))[1]["hostAccess"] == ACCESS
    new["commandsFollow"] = True
    _, created = await Service().create(call, new)
    host.observed["access"] = ACCESS | MALLORY
    reading = await Service().read(call, "id", created, dict(new))
    assert reading.inputs["differences"] == {}
    assert reading.outputs["hostAccess"] == ACCESS | MALLORY


async def test_a_create_installs_an_edited_engine_again(monkeypatch):
    """Otherwise every later `up` would end with the same error."""
    asked = []

    async def run_unit(call, _values, unit, *, restart):
        asked.append((unit.name, restart))
        if unit.name == layout.INSTALL_UNIT and any("rm -f" in script for script in call.host.ran):
            call.host.observed["edited"] = []
        return {}

    monkeypatch.setattr(service, "run_unit", run_unit)
    host = Host({**AS_DECLARED, "edited": ["/opt/vllm/x.py"]}, **readiness(result={"passed": True}))
    call, new = Call(host), dict(SERVICE)
    call.host = host
    await Service().check(call, new, None)
    await Service().create(call, new)
    assert f"rm -f {layout.ENGINE_STAMP}" in host.ran
    assert (layout.INSTALL_UNIT, True) in asked


async def test_a_clock_that_nothing_synchronises_is_a_warning():
    call = Call(Host({**AS_DECLARED, "synchronised": False}))
    reading = await Service().read(call, "id", {}, dict(SERVICE))
    assert reading.inputs["differences"] == {}
    assert "nothing synchronises the clock of the host" in call.lines[-1]


def test_a_connection_shows_no_key():
    connection = host_connection.Connection.from_values(None, {"connection": CONNECTION["connection"]})
    assert "pem" not in repr(connection)


@pytest.mark.usefixtures("no_units")
@pytest.mark.parametrize(
    ("wanted", "served_before", "ends"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
async def test_a_new_machine_on_which_vllm_is_never_ready_is_ended(monkeypatch, wanted, served_before, ends):
    ended = []

    async def terminate(_call, instance_id, state):
        ended.append((instance_id, state["sshPrivateKey"], state["drainTimeoutS"]))

    monkeypatch.setattr(never_ready, "terminate", terminate)
    served = {layout.READY_FILES: "yes\n" if served_before else ""}
    host = Host(**readiness("failed", result=ENDED), journalctl="CUDA out of memory\n", **served)
    new = {**SERVICE, "endIfNeverReady": wanted}
    await Service().check(None, new, None)
    message = "the machine was ended, because it never became ready" if ends else "CUDA out of memory"
    with pytest.raises(UserError, match=message) as failure:
        await Service().create(Call(host), new)
    assert "CUDA out of memory" in str(failure.value)
    assert ended == ([("i", "pem", 0)] if ends else [])


@pytest.mark.usefixtures("no_units")
async def test_a_machine_is_not_ended_for_a_step_before_the_start_of_vllm(monkeypatch):
    async def fails(*_, **__):
        raise UserError("preflight failed: the GPU wants a reset")

    monkeypatch.setattr(service, "run_unit", fails)
    monkeypatch.setattr(never_ready, "terminate", None)
    new = {**SERVICE, "endIfNeverReady": True}
    await Service().check(None, new, None)
    with pytest.raises(UserError, match="the GPU wants a reset") as failure:
        await Service().create(Call(Host()), new)
    assert "was ended" not in str(failure.value)
