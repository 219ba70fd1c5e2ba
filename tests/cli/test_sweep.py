"""`pulumi-vllm sweep` on the simulated API: what it finds, what it deletes, and its exit codes."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.cli import sweep as sweep_module
from pulumi_vllm.plan.names import Mark, marked_name, physical_name


@pytest.fixture
def cloud(doubles, monkeypatch):
    with doubles.cloud_at() as api:
        api.sim("profile/data-crunch", post_latency_s=0, running_after_s=0, ip_visible_after_s=0)
        monkeypatch.setenv("SPHERON_URL", api.url)
        monkeypatch.setenv("SPHERON_API_KEY", doubles.KEY)
        yield api


@pytest.fixture
def states(tmp_path, monkeypatch):
    """A function: write a state of project p with these ids. The folder is the default backend."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")

    def write(stack, *, creating=False, **ids):
        types = {"instance": "vllm:spheron:Instance", "volume": "vllm:spheron:Volume"}
        file = tmp_path / ".pulumi" / "stacks" / "p" / f"{stack}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        found = [
            {"type": types[kind], "id": one, "urn": f"urn:pulumi:{stack}::p::{types[kind]}::{kind}"}
            for kind, one in ids.items()
        ]
        resource = {"type": types["instance"], "urn": f"urn:pulumi:{stack}::p::{types['instance']}::machine"}
        operations = [{"type": "creating", "resource": resource}] if creating else []
        latest = {"resources": found, "pending_operations": operations}
        file.write_text(json.dumps({"checkpoint": {"stack": f"organization/p/{stack}", "latest": latest}}))

    return write


@pytest.fixture
def sweep(capsys):
    """A function: run the command; the exit code, and its JSON or what it printed."""

    def run(*arguments, text=False):
        code = main(["sweep", *arguments, *([] if text else ["--json"])])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out and not text else printed.out + printed.err

    return run


def rent(cloud, stack, resource="machine", mark=None):
    made = cloud.create(name=marked_name(mark or Mark(), stack, "p", resource, "urn"))
    cloud.until(lambda: cloud.status(made["id"]) == "running")
    return made["id"]


def store(cloud, stack, size_gb=100):
    name = physical_name(stack, "p", "volume", "urn")
    body = {"name": name, "sizeInGb": size_gb, "provider": "data-crunch", "region": "Finland 3"}
    made = cloud.post("/api/volumes", json=body).json()
    return made["id"], made["volumeId"], name


def attach(cloud, handle, instance):
    answer = cloud.post(f"/api/volumes/{handle}/attach", json={"deploymentId": instance})
    assert answer.status_code == 200, answer.text


def claims(document):
    return {row["id"]: row["claim"] for row in document["found"]}


def listed(cloud):
    alive = {"deploying", "running"}
    instances = [one["id"] for one in cloud.get("/api/deployments").json() if one["status"] in alive]
    return {*instances, *(one["id"] for one in cloud.get("/api/volumes").json()["volumes"])}


def test_what_belongs_to_whom_is_told_apart(cloud, states, sweep):
    cloud.create(name="somebody-elses")
    known, lost, elsewhere = rent(cloud, "prod"), rent(cloud, "prod", "lost"), rent(cloud, "their")
    used, kept, theirs = store(cloud, "prod")[0], store(cloud, "down", 200)[0], store(cloud, "their")[0]
    states("prod", instance=known, volume=used)
    states("down")
    code, document = sweep()
    assert claims(document) == {
        known: "in state", used: "in state", lost: "left over", kept: "kept",
        elsewhere: "another stack", theirs: "another stack",
    }  # fmt: skip
    assert code == 2
    assert document["schema_version"] == 1
    assert document["stacks_read"] == ["p/down", "p/prod"]
    (row,) = [row for row in document["found"] if row["id"] == kept]
    assert row["usd_per_day"] == pytest.approx(200 * 0.000109 * 24, abs=1e-3)
    assert document["usd_per_day"]["left over"] == pytest.approx(0.24)
    assert {row["stack"] for row in document["found"] if row["claim"] == "in state"} == {"p/prod"}


def test_the_exit_code_is_2_only_for_what_is_left_over(cloud, states, sweep):
    states("prod", instance=rent(cloud, "prod"))
    store(cloud, "prod")
    assert sweep()[0] == 0
    elsewhere = rent(cloud, "their")
    code, printed = sweep(text=True)
    assert code == 3
    assert "another stack: 1, $0.24 per day; name its state with --state, or pass --all-states" in printed
    assert "kept: 1, $0.26 per day" in printed
    code, document = sweep("--all-states")
    assert (code, claims(document)[elsewhere]) == (2, "left over")


def test_an_attached_volume_belongs_with_its_instance(cloud, states, sweep):
    lost, (volume, handle, _) = rent(cloud, "prod"), store(cloud, "prod")
    attach(cloud, handle, lost)
    states("prod")
    assert claims(sweep()[1]) == {lost: "left over", volume: "left over"}


def test_delete_ends_what_is_left_over_and_keeps_volumes(cloud, states, sweep):
    lost, (volume, handle, _) = rent(cloud, "prod"), store(cloud, "prod")
    attach(cloud, handle, lost)
    states("prod")
    cloud.sim("options", minimum_runtime_min=60000)
    code, document = sweep("--delete")
    assert code == 2
    (reason,) = [row["not_deleted_because"] for row in document["found"] if row["id"] == lost]
    assert re.fullmatch(
        r"the minimum run time of 60000 min ends in \d+ min; run this again after that", reason
    )
    assert listed(cloud) == {lost, volume}

    cloud.sim("options", minimum_runtime_min=0)
    code, document = sweep("--delete")
    assert [row["id"] for row in document["found"] if row["deleted"]] == [lost]
    assert code == 0
    assert listed(cloud) == {volume}
    assert claims(sweep()[1]) == {volume: "kept"}


def test_volumes_are_deleted_with_their_flag_only(cloud, states, sweep):
    lost, (held, handle, _), (kept, _, name) = rent(cloud, "prod"), store(cloud, "prod"), store(cloud, "down")
    attach(cloud, handle, lost)
    used = store(cloud, "other")[0]
    states("prod")
    states("down")
    states("other", volume=used)
    cloud.sim("advance", seconds=1300)
    code, printed = sweep("--delete", name, text=True)
    assert code == 1
    assert f"{name}: is a volume; add --volumes to delete it with its content" in printed
    assert "nothing was deleted" in printed
    code, document = sweep("--delete", "--volumes", name)
    assert [row["id"] for row in document["found"] if row["deleted"]] == [kept]
    assert code == 2, "the instance is still there"
    assert sweep("--delete", "--volumes")[0] == 0
    assert listed(cloud) == {used}
    assert held not in listed(cloud)


def test_a_name_may_be_of_another_stack_but_never_in_a_state(cloud, states, sweep):
    theirs, (used, _, name) = store(cloud, "their")[0], store(cloud, "prod")
    states("prod", volume=used)
    for wrong, message in (
        (name, f"{name}: is in the state of p/prod; run `pulumi destroy` there"),
        ("nothing", "nothing: no instance or volume of ours has this name or id"),
    ):
        code, printed = sweep("--delete", "--volumes", theirs, wrong, text=True)
        assert code == 1
        assert message in printed
    assert sweep("--delete", "--volumes", theirs)[0] == 0
    assert listed(cloud) == {used}


def test_names_without_delete_are_refused(cloud, states, sweep):
    states("prod")
    for arguments in (("x",), ("--volumes",)):
        code, printed = sweep(*arguments, text=True)
        assert code == 64
        assert "have an effect with --delete only; add it" in printed


def test_what_an_update_is_creating_is_deleted_by_its_name_only(cloud, states, sweep):
    """The state contains an instance only when it is ready, minutes after it was rented."""
    coming = rent(cloud, "prod")
    states("prod", creating=True)
    cloud.sim("options", minimum_runtime_min=0)
    code, document = sweep("--delete")
    assert code == 2
    (row,) = document["found"]
    assert row["not_deleted_because"].startswith(
        "an update of p/prod is creating it, or was interrupted then"
    )
    assert listed(cloud) == {coming}
    assert sweep("--delete", coming)[0] == 0
    assert listed(cloud) == set()


def test_a_volume_that_an_update_has_taken_meanwhile_is_not_detached(cloud, states, sweep, monkeypatch):
    volume, handle, _ = store(cloud, "prod")
    states("prod")
    read = sweep_module.read_states

    def read_and_take(*arguments, **more):
        attach(cloud, handle, rent(cloud, "prod"))
        return read(*arguments, **more)

    monkeypatch.setattr(sweep_module, "read_states", read_and_take)
    code, document = sweep("--delete", "--volumes")
    assert code == 1
    (row,) = document["found"]
    assert row["id"] == volume
    assert "has been attached to" in row["not_deleted_because"]
    (left,) = cloud.get("/api/volumes").json()["volumes"]
    assert left["attachedToDeploymentIds"], "it is still attached"


def ends_in(hours, owner=None):
    return Mark(owner, datetime.now(UTC) + timedelta(hours=hours))


def test_owner_and_end_are_read_from_the_name(cloud, states, sweep):
    states("prod", instance=rent(cloud, "prod", mark=ends_in(2, "ana")))
    (row,) = sweep()[1]["found"]
    assert (row["claim"], row["owner"]) == ("in state", "ana")
    assert datetime.fromisoformat(row["expires"]) > datetime.now(UTC) + timedelta(hours=1)
    assert "owner ana, expires 20" in sweep(text=True)[1]


def test_what_is_expired_is_ended_in_whatever_state_and_without_reading_one(
    cloud, states, sweep, monkeypatch
):
    over, coming = rent(cloud, "prod", mark=ends_in(-1)), rent(cloud, "their", mark=ends_in(1))
    just_over = rent(cloud, "prod", "other", mark=ends_in(-0.1))
    off, plain = rent(cloud, "off"), rent(cloud, "plain")
    cloud.create(name="somebody-elses")
    store(cloud, "prod")
    cloud.sim(f"reclaim/{off}?as=stopped")
    cloud.until(lambda: cloud.status(off) == "stopped")
    monkeypatch.setattr(sweep_module, "read_states", None)
    code, document = sweep("--expired")
    assert code == 2
    assert {row["id"] for row in document["found"]} == {over, off}
    code, printed = sweep("--expired", text=True)
    assert "expired: 2, $0.48 per day; `pulumi-vllm sweep --expired --delete` ends them" in printed

    cloud.sim("options", minimum_runtime_min=60000)
    code, document = sweep("--expired", "--delete")
    assert code == 2
    assert all("run this again after that" in row["not_deleted_because"] for row in document["found"])

    cloud.sim("options", minimum_runtime_min=0)
    code, document = sweep("--expired", "--delete")
    assert (code, [row["deleted"] for row in document["found"]]) == (0, [True, True])
    assert {over, off} & listed(cloud) == set()
    assert {coming, just_over, plain} <= listed(cloud)
    code, printed = sweep("--expired", "--delete", text=True)
    assert (code, printed) == (0, "the cloud lists no expired instance of ours\n")


def test_expired_takes_no_other_choice(cloud, sweep):
    for more in (["--state", "x"], ["--all-states"], ["--delete", "--volumes"], ["--delete", "name"]):
        code, printed = sweep("--expired", *more, text=True)
        assert code == 64
        assert "--expired takes neither NAME, --volumes, --state nor --all-states" in printed
