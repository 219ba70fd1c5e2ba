"""`pulumi-vllm cost` on the simulated API. A program takes the place of the Pulumi CLI."""

import json
from datetime import datetime

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.plan.names import Mark, marked_name, physical_name

PULUMI = """#!/bin/sh
case "$*" in
  *export*) cat "$STATE" ;;
  *) exit 9 ;;
esac
"""


@pytest.fixture
def cloud(doubles, monkeypatch):
    with doubles.cloud_at() as api:
        api.sim("profile/data-crunch", post_latency_s=0, running_after_s=0, ip_visible_after_s=0)
        api.sim("options", minimum_runtime_min=0)
        monkeypatch.setenv("SPHERON_URL", api.url)
        monkeypatch.setenv("SPHERON_API_KEY", doubles.KEY)
        yield api


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function: set the resources in the state of the stack prod."""
    (tmp_path / "pulumi").write_text(PULUMI)
    (tmp_path / "pulumi").chmod(0o755)
    (tmp_path / "Pulumi.yaml").write_text("name: p\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("STATE", str(tmp_path / "state.json"))
    monkeypatch.chdir(tmp_path)

    def write(**ids):
        found = [
            {"type": f"vllm:spheron:{kind}", "id": one, "urn": f"urn:pulumi:prod::p::vllm:spheron:{kind}::it"}
            for kind, one in ids.items()
        ]
        (tmp_path / "state.json").write_text(json.dumps({"deployment": {"resources": found}}))

    write()
    return write


def cost(capsys, *arguments, text=False):
    code = main(["cost", "prod", *arguments, *([] if text else ["--json"])])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if not text else printed.out + printed.err


def rent(cloud, stack="prod", mark=None):
    made = cloud.create(name=marked_name(mark or Mark(), stack, "p", "machine", str(mark)))
    cloud.until(lambda: cloud.status(made["id"]) == "running")
    return made["id"]


def seconds(found, key="began"):
    return datetime.fromisoformat(found[key]).timestamp()


def test_ended_machines_and_kept_volumes_count(cloud, project, capsys):
    first = rent(cloud)
    cloud.sim("advance", seconds=10 * 3600)
    assert cloud.delete(f"/api/deployments/{first}").status_code == 200
    second, theirs = rent(cloud, mark=Mark("ana")), rent(cloud, "their")
    name = physical_name("prod", "p", "volume", "urn")
    body = {"name": name, "sizeInGb": 100, "provider": "data-crunch", "region": "Finland 3"}
    volume = cloud.post("/api/volumes", json=body).json()["id"]
    cloud.sim("advance", seconds=5 * 3600)
    project(Instance=second, Volume=volume)
    code, found = cost(capsys)
    assert code == 0
    assert [one["id"] for one in found["items"]] == [first, second, volume]
    assert theirs not in str(found)
    charged, running, kept = (one["usd"] for one in found["items"])
    # The virtual clock of these tests runs on, by more than an hour and a half in a second.
    assert charged == pytest.approx(cloud.get(f"/api/deployments/{first}").json()["totalCost"], abs=1e-3)
    assert 0.05 <= running <= cloud.get(f"/api/deployments/{second}").json()["totalCost"]
    (lasted,) = [seconds(one) for one in found["items"] if one["kind"] == "volume"]
    assert kept == pytest.approx((seconds(found, "until") - lasted) / 3600 * 100 * 0.000109, abs=1e-3)
    assert [one["source"] for one in found["items"]] == [
        "the cloud's record", "the cloud's record", "computed: time x price",
    ]  # fmt: skip
    assert found["usd"] == pytest.approx(charged + running + kept, abs=1e-3)
    assert found["computed_usd"] == pytest.approx(kept, abs=1e-3)
    assert found["forecast"]["usd"] >= found["usd_this_month"]
    _, printed = cost(capsys, text=True)
    assert "this month: $" in printed
    assert "forecast until " in printed
    assert " of it computed" in printed


def test_after_a_destroy_the_names_tell_what_belongs_to_the_stack(cloud, project, capsys):
    machine = rent(cloud)
    assert [one["id"] for one in cost(capsys)[1]["items"]] == [machine]


def test_the_schedule_of_the_stack_file_is_the_forecast(cloud, project, capsys, tmp_path):
    rent(cloud)
    block = {"config": {"pulumi-vllm:server": {"schedule": {"up": "0 7 * * *", "down": "0 8 * * *"}}}}
    (tmp_path / "Pulumi.prod.yaml").write_text(json.dumps(block))
    assert "server.schedule" in cost(capsys)[1]["forecast"]["assumes"]


def test_a_stack_without_anything_says_so(cloud, project, capsys):
    assert "the cloud lists no machine and no volume of this stack" in cost(capsys, text=True)[1]


def test_the_cloud_knows_nothing_of_a_machine_of_ones_own(project, capsys, tmp_path):
    own = {"type": "vllm:host:Machine", "id": "own-1", "urn": "urn:pulumi:prod::p::vllm:host:Machine::it"}
    (tmp_path / "state.json").write_text(json.dumps({"deployment": {"resources": [own]}}))
    code, printed = cost(capsys, text=True)
    assert (code, "its machine was made by somebody else" in printed) == (1, True)


def test_what_is_missing_is_named(cloud, project, capsys, monkeypatch, tmp_path):
    (tmp_path / "Pulumi.yaml").unlink()
    code, printed = cost(capsys, text=True)
    assert (code, "run this in the project's folder" in printed) == (1, True)
    monkeypatch.delenv("SPHERON_API_KEY")
    code, printed = cost(capsys, text=True)
    assert (code, "SPHERON_API_KEY is not set" in printed) == (1, True)
