"""The process and the commands of the local cloud, with machines in memory."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import requests
from pulumi_vllm.cli import local
from pulumi_vllm_local import command, control, settings, shutdown
from pulumi_vllm_local.settings import LocalCloudError
from pulumi_vllm_local.tiny_model import model_files

# Each test starts processes, which takes seconds on a busy computer.
pytestmark = pytest.mark.ci

LOCKS = local.ENGINE_LOCKS
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFak test"


class NoMachines:
    """A double of Machines for `local down`."""

    def __init__(self, state_dir):
        self.state_dir = state_dir

    def down(self, purge=False):
        (self.state_dir / "machines-ended").write_text(str(purge))


@pytest.fixture(scope="module", autouse=True)
def _hub_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(
        control, "PROGRAM", (sys.executable, str(Path(__file__).with_name("daemon_with_doubles.py")))
    )
    monkeypatch.setattr(control, "prepare", lambda _engine, _locks, _release, _progress: None)
    monkeypatch.setattr(shutdown, "Machines", NoMachines)
    monkeypatch.setenv("PULUMI_VLLM_LOCAL_DIR", str(tmp_path / "cloud"))
    yield tmp_path / "cloud"
    control.down(tmp_path / "cloud", purge=True)


def _local(*words):
    parser = argparse.ArgumentParser()
    local.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["local", *words])
    return parsed.run(parsed)


def _create(running, name="one"):
    headers = {"Authorization": f"Bearer {running.api_key}"}
    team = requests.get(f"{running.url}/api/teams", headers=headers, timeout=5).json()["teams"][0]["id"]
    groups = requests.get(f"{running.url}/api/gpu-offers?search=cpu", headers=headers, timeout=5).json()[
        "data"
    ]
    offer = next(item for item in groups[0]["offers"] if item["provider"] == "data-crunch")
    body = {
        "provider": "data-crunch", "offerId": offer["offerId"], "gpuType": "CPU", "gpuCount": 0,
        "region": offer["clusters"][0], "operatingSystem": offer["os_options"][0],
        "instanceType": offer["instanceType"], "teamId": team, "name": name, "ssh_public_key": PUBLIC_KEY,
    }  # fmt: skip
    answer = requests.post(f"{running.url}/api/deployments", headers=headers, json=body, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_up_is_idempotent_and_prints_only_environment_lines(state, capsys):
    assert _local("up", "--factor", "6000") == 0
    out, err = capsys.readouterr()
    lines = dict(line.removeprefix("export ").split("=", 1) for line in out.splitlines())
    assert set(lines) == {"SPHERON_URL", "SPHERON_API_KEY", "PULUMI_VLLM_LOCAL_HUB"}
    assert "serving on" in err
    first = control.running(state)
    assert _local("up", "--factor", "6000", "--json") == 0
    assert json.loads(capsys.readouterr().out) == first.plain()
    hub = requests.get(f"{first.hub_url}/api/models/{model_files.REPOSITORY}", timeout=5).json()
    assert hub["sha"] == model_files.pinned()["revision"]
    assert (settings.Files(state).settings.stat().st_mode & 0o777) == 0o600


def test_a_killed_process_is_replaced_with_the_same_url_key_and_records(state):
    first = control.up(state, LOCKS, factor=6000.0)
    made = _create(first)
    os.kill(first.pid, signal.SIGKILL)
    while control.is_held(settings.Files(state).lock):
        time.sleep(0.01)
    assert control.running(state) is None
    assert control.status(state)["running"] is False
    second = control.up(state, LOCKS, factor=6000.0)
    assert (second.url, second.api_key, second.hub_url) == (first.url, first.api_key, first.hub_url)
    assert second.pid != first.pid
    shown = control.status(state)["state"]["deployments"]
    assert [(item["id"], item["name"]) for item in shown] == [(made["id"], "one")]


def test_a_port_in_use_after_a_crash_is_an_error_with_a_remedy(state):
    first = control.up(state, LOCKS, factor=6000.0)
    made = _create(first)
    os.kill(first.pid, signal.SIGKILL)
    while control.is_held(settings.Files(state).lock):
        time.sleep(0.01)
    port = settings.Settings.read(state).port
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        with pytest.raises(LocalCloudError, match=f"port {port}: .*; stop what listens there, or .* --port"):
            control.up(state, LOCKS, factor=6000.0)
    assert control.up(state, LOCKS, factor=6000.0).url == first.url
    assert [item["id"] for item in control.status(state)["state"]["deployments"]] == [made["id"]]


def test_two_checkouts_share_nothing(state, tmp_path):
    other = tmp_path / "other"
    one, two = control.up(state, LOCKS, factor=6000.0), control.up(other, LOCKS, factor=6000.0)
    try:
        assert {one.url, one.api_key, one.hub_url}.isdisjoint({two.url, two.api_key, two.hub_url})
        made = _create(one)
        assert control.status(other)["state"]["deployments"] == []
        wrong = requests.get(
            f"{two.url}/api/deployments", headers={"Authorization": f"Bearer {one.api_key}"}, timeout=5
        )
        assert wrong.status_code == 401, "a stack that was pointed at the other checkout's cloud is refused"
        control.down(other)
        assert control.running(other) is None
        assert [item["id"] for item in control.status(state)["state"]["deployments"]] == [made["id"]]
    finally:
        control.down(other, purge=True)


def test_new_settings_restart_an_empty_cloud_and_are_refused_in_use(state, capsys):
    first = control.up(state, LOCKS, engine="fake", factor=6000.0)
    second = control.up(state, LOCKS, engine="real", factor=6000.0)
    assert (second.engine, second.url) == ("real", first.url)
    assert second.pid != first.pid
    _create(second)
    assert _local("up", "--engine", "fake", "--factor", "6000") == 1
    printed = capsys.readouterr().err
    assert "engine real -> fake" in printed
    assert "machines (one)" in printed


def test_down_keeps_volumes_and_updates_the_records(state, capsys):
    running = control.up(state, LOCKS, factor=6000.0)
    made = _create(running)
    headers = {"Authorization": f"Bearer {running.api_key}"}
    volume = {"name": "weights", "sizeInGb": 1, "provider": "data-crunch", "region": "Finland 3"}
    requests.post(f"{running.url}/api/volumes", headers=headers, json=volume, timeout=5).raise_for_status()
    assert _local("down") == 0
    assert "1 volumes kept" in capsys.readouterr().err
    assert (state / "machines-ended").read_text() == "False"
    assert _local("status") == command.NOT_RUNNING
    again = control.up(state, LOCKS, factor=6000.0)
    assert again.api_key == running.api_key
    shown = control.status(state)["state"]
    assert [(item["id"], item["status"]) for item in shown["deployments"]] == [(made["id"], "terminated")]
    assert [item["name"] for item in shown["volumes"]] == ["weights"]
    assert _local("down", "--purge") == 0
    assert not settings.Files(state).records.exists()


def test_status_logs_and_controls(state, capsys):
    with pytest.raises(LocalCloudError, match="unknown"):
        control.up(state, LOCKS, engine="other")
    assert _local("status") == command.NOT_RUNNING
    assert _local("reclaim", "one") == 1
    assert "not running" in capsys.readouterr().err
    running = control.up(state, LOCKS, factor=6000.0)
    _create(running)
    for _ in range(200):
        if control.status(state)["state"]["deployments"][0]["status"] == "running":
            break
        time.sleep(0.02)
    assert _local("pause", "one") == 0
    assert _local("unpause", "one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "one"
    assert _local("status") == 0
    assert "machine one" in capsys.readouterr().out
    assert _local("reclaim", "one") == 0
    assert _local("logs") == 0
    assert "serving" in capsys.readouterr().out
    for verb in ("logs", "console", "reclaim", "pause", "unpause", "move"):
        for name in ("nobody", "no/body?"):
            assert _local(verb, name) == 1
            assert (
                f"local {verb}: no machine {name}; see `pulumi-vllm local status`" in capsys.readouterr().err
            )
    assert _local("pause", "one") == 1
    assert "no machine one" in capsys.readouterr().err, "it is gone"
    for words in ((), ("sh", "-c", "true", "--json"), ("--", "true")):
        assert _local("console", "one", *words) == 1  # a double, without a container
        assert "machine" in capsys.readouterr().err


def test_a_port_in_use_is_an_error(state):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(LocalCloudError, match=f"cannot listen on 127.0.0.1 port {port}"):
            control.up(state, LOCKS, port=port)
