"""What the host keeps of a server that is ready, and what it restores. systemctl is a script that records its words."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.host_programs.conftest import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

UNIT, CONFIG = "etc/systemd/system/vllm.service", "etc/pulumi-vllm/readiness.json"
GATEWAY, KEYS = "etc/pulumi-vllm/gateway/haproxy.cfg", "etc/pulumi-vllm/gateway/keys.map"
TLS, CA = "etc/pulumi-vllm/gateway/tls.pem", "etc/pulumi-vllm/gateway/ca.pem"
TOKEN, RULES = "etc/pulumi-vllm/secrets/hf-token", "etc/pulumi-vllm/nftables.nft"
PROGRAM = "usr/local/lib/pulumi-vllm/readiness"
FILES = (UNIT, CONFIG, GATEWAY, KEYS, TOKEN, RULES, PROGRAM, "etc/systemd/system/haproxy.service")


class Host:
    """A host whose vLLM runs with the unit file on the disk, from one of two engines."""

    def __init__(self, root: Path) -> None:
        self.root, self.bin = root / "root", root / "bin"
        for path in FILES:
            self.write(path, f"old {path}")
        (self.root / TOKEN).chmod(0o600)
        (self.root / PROGRAM).chmod(0o755)
        self.link = self.root / "opt/vllm"
        self.switch("b")
        self.switch("a")
        self.bin.mkdir()
        self.state = root / "state"
        self.words = root / "words"
        systemctl = self.bin / "systemctl"
        systemctl.write_text(f'#!/bin/sh\necho "$*" >> {self.words}\n[ "$1" != show ] || cat {self.state}\n')
        systemctl.chmod(0o755)
        self.started("first")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def switch(self, engine: str) -> None:
        """Let the link lead to an engine."""
        self.write(f"opt/vllm-{engine}/bin/python", engine)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(f"vllm-{engine}")

    def started(self, invocation: str, state: str = "active") -> None:
        """Let vLLM have been started with its unit as it is."""
        files = {f"/{UNIT}": hashlib.sha256((self.root / UNIT).read_bytes()).hexdigest()}
        record = json.dumps({"invocation": invocation, "time": 1.0, "files": files})
        self.write("run/pulumi-vllm/starts/vllm.service.json", record)
        self.state.write_text(f"ActiveState={state}\nInvocationID={invocation}\n")

    def __call__(self, *verb: str) -> subprocess.CompletedProcess[str]:
        self.words.write_text("")
        environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = [sys.executable, "-BsE", str(PROGRAMS / "rollback"), *verb, "--root", str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def ran(self, *verb: str) -> dict[str, Any]:
        run = self(*verb)
        assert (run.returncode, run.stderr) == (0, "")
        return self.result() if verb[0] == "restore" else {}

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.read("run/pulumi-vllm/rollback.json"))
        return result

    def systemctl(self) -> list[str]:
        return [line for line in self.words.read_text().splitlines() if not line.startswith("show")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_was_ready_is_restored_and_started(host: Host) -> None:
    host.ran("keep")
    for path in FILES:
        host.write(path, f"new {path}")
    (host.root / PROGRAM).chmod(0o700)
    (host.root / "opt/vllm.next").symlink_to("vllm-b")
    host.started("second")
    result = host.ran("restore")
    kept = [path for path in FILES if path not in (KEYS, TOKEN, RULES)]
    assert result == {
        "files": sorted(f"/{path}" for path in kept), "engine": None, "restarted": True, "error": None,
    }  # fmt: skip
    assert all(host.read(path) == f"{'old' if path in kept else 'new'} {path}" for path in FILES)
    assert (host.root / PROGRAM).stat().st_mode & 0o777 == 0o755
    assert not (host.root / "opt/vllm.next").is_symlink()
    assert host.systemctl() == [
        "stop vllm-readiness.service vllm.service",
        "daemon-reload",
        "try-restart haproxy.service",
        "reset-failed vllm.service",
        "start --no-block vllm.service",
        "restart --no-block vllm-readiness.service",
    ]
    assert json.loads(host.read("var/lib/pulumi-vllm/restored.json")) == result["files"]
    host.ran("keep")
    assert not (host.root / "var/lib/pulumi-vllm/restored.json").exists()
    host.started("third")
    assert host.ran("restore")["nothing"] == "vLLM was last ready with the same files and the same engine"
    assert host.systemctl() == []


def test_no_secret_is_kept_and_only_root_reads_the_rest(host: Host) -> None:
    host.ran("keep")
    record = host.root / "var/lib/pulumi-vllm/ready.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert not [path for path in (KEYS, TOKEN, RULES) if path in record.read_text()]


@pytest.mark.parametrize("name", ["b.example.com", "a.example.com"])
def test_the_certificate_comes_back_only_with_its_name(host: Host, name: str) -> None:
    host.write(CONFIG, json.dumps({"server_name": "a.example.com", "timeout_s": 60}))
    for path in (TLS, CA):
        host.write(path, "for a.example.com")
    host.ran("keep")
    host.write(CONFIG, json.dumps({"server_name": name, "timeout_s": 90}))
    host.write(UNIT, "refused")
    for path in (TLS, CA):
        host.write(path, f"renewed, for {name}")
    host.ran("restore")
    back = name != "a.example.com"
    assert {host.read(path) for path in (TLS, CA)} == {
        "for a.example.com" if back else f"renewed, for {name}"
    }
    assert ("try-reload-or-restart haproxy.service" in host.systemctl()) == back
    assert json.loads(host.read(CONFIG))["server_name"] == "a.example.com"


def test_without_anything_that_was_ready_nothing_is_touched(host: Host) -> None:
    host.write(UNIT, "new")
    assert host.ran("restore")["nothing"] == "vLLM was not ready on this host before"
    assert (host.read(UNIT), host.systemctl()) == ("new", [])


def test_a_vllm_that_runs_with_what_is_restored_goes_on(host: Host) -> None:
    host.ran("keep")
    host.write(UNIT, "new")
    (host.root / "opt/vllm.next").symlink_to("vllm-b")
    assert host.ran("restore")["restarted"] is False
    assert host.systemctl() == ["daemon-reload"]
    assert not (host.root / "opt/vllm.next").is_symlink()


@pytest.mark.parametrize("state", ["failed", "activating"])
def test_a_vllm_that_does_not_run_is_started(host: Host, state: str) -> None:
    host.ran("keep")
    host.write(CONFIG, "new")
    host.started("first", state)
    assert host.ran("restore")["restarted"] is True


def test_a_vllm_that_runs_with_other_files_is_spared(host: Host) -> None:
    host.ran("keep")
    host.write(UNIT, "new")
    host.started("second")
    assert (
        host.ran("restore", "--spare")["nothing"] == "vLLM runs with other files than it was last ready with"
    )
    assert (host.read(UNIT), host.systemctl()) == ("new", [])
    host.started("second", "failed")
    assert host.ran("restore", "--spare")["restarted"] is True


def test_the_engine_comes_back_and_is_pruned_after_success_only(host: Host) -> None:
    host.ran("keep")
    host.switch("b")
    assert host.ran("restore")["engine"] == str(host.root / "opt/vllm-a")
    assert host.link.resolve().name == "vllm-a"
    for engine, kept in (("b", ["a", "b"]), ("c", ["b", "c"]), ("c", ["b", "c"])):
        host.switch(engine)
        host.ran("keep")
        engines = sorted(path.name for path in host.link.parent.iterdir())
        assert engines == ["vllm", *(f"vllm-{name}" for name in kept)]


def test_an_engine_of_an_image_comes_back_from_where_it_was_put(host: Host) -> None:
    host.link.unlink()
    host.write("opt/vllm/bin/python", "of the image")
    host.ran("keep")
    host.link.rename(host.root / "opt/vllm-before")
    host.link.symlink_to("vllm-b")
    host.ran("restore")
    assert (host.link / "bin/python").read_text() == "of the image"


def test_an_engine_that_is_gone_is_an_error(host: Host) -> None:
    host.ran("keep")
    host.switch("b")
    (host.root / "opt/vllm-a/bin/python").unlink()
    run = host("restore")
    assert run.returncode == 1
    assert "the engine that vLLM was ready with is not there any more" in host.result()["error"]
    assert host.systemctl() == []


def test_other_files_are_kept_unless_vllm_is_to_start_with_new_ones(host: Host) -> None:
    host.ran("refresh")
    assert not (host.root / "var/lib/pulumi-vllm/ready.json").exists()
    host.ran("keep")
    host.write(GATEWAY, "newer")
    host.ran("refresh")
    host.write(UNIT, "refused")
    host.write(GATEWAY, "newest")
    host.ran("refresh")
    host.ran("restore")
    assert (host.read(GATEWAY), host.read(UNIT)) == ("newer", f"old {UNIT}")
    assert "try-reload-or-restart haproxy.service" in host.systemctl()


def test_a_disk_that_can_not_be_written_is_named(host: Host) -> None:
    host.ran("keep")
    host.write(CONFIG, "new")
    (host.root / "etc/pulumi-vllm/.readiness.json.restored").mkdir()
    run = host("restore")
    assert run.returncode == 1
    assert ".readiness.json.restored: Is a directory" in host.result()["error"]


class Several(Host):
    """A host with two engines, which started with the same files or with others."""

    TEMPLATE = "etc/systemd/system/vllm@.service"
    UNITS = ("vllm@0.service", "vllm@1.service")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (self.root / UNIT).unlink()
        for number in (0, 1):
            self.write(f"etc/pulumi-vllm/vllm-{number}.env", f"{number}")
        self.write(self.TEMPLATE, "old")
        script = f'[ "$1" != show ] || for last; do :; done\n[ "$1" != show ] || cat {root}/state-$last\n'
        (self.bin / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {self.words}\n{script}')
        for unit in self.UNITS:
            self.runs(unit, "first")

    def runs(self, unit: str, invocation: str, state: str = "active") -> None:
        files = {f"/{self.TEMPLATE}": hashlib.sha256((self.root / self.TEMPLATE).read_bytes()).hexdigest()}
        record = json.dumps({"invocation": invocation, "time": 1.0, "files": files})
        self.write(f"run/pulumi-vllm/starts/{unit}.json", record)
        (self.bin.parent / f"state-{unit}").write_text(f"ActiveState={state}\nInvocationID={invocation}\n")


def test_of_several_engines_only_that_with_other_files_restarts(tmp_path: Path) -> None:
    host = Several(tmp_path)
    host.ran("keep")
    host.write(host.TEMPLATE, "new")
    host.runs("vllm@0.service", "second")
    host.write("run/pulumi-vllm/readiness.engine", "vllm@0.service")
    assert host.ran("restore")["restarted"]
    assert host.read(host.TEMPLATE) == "old"
    assert host.systemctl() == [
        "stop vllm-readiness.service vllm@0.service",
        "daemon-reload",
        "reset-failed vllm@0.service",
        "start --no-block vllm@0.service",
        "restart --no-block vllm-readiness.service",
    ]
    assert not (host.root / "run/pulumi-vllm/readiness.engine").exists()


def test_another_number_of_engines_is_given_back(tmp_path: Path) -> None:
    """One engine was ready, and an update to two failed: the two stop, and the one starts."""
    host = Several(tmp_path)
    for number in (0, 1):
        (host.root / f"etc/pulumi-vllm/vllm-{number}.env").unlink()
    host.write("etc/pulumi-vllm/vllm.env", "one")
    host.write(UNIT, "one")
    host.runs("vllm.service", "first")
    host.ran("keep")
    (host.root / UNIT).unlink()
    (host.root / "etc/pulumi-vllm/vllm.env").unlink()
    for number in (0, 1):
        host.write(f"etc/pulumi-vllm/vllm-{number}.env", f"{number}")
    host.runs("vllm.service", "first", "inactive")
    host.ran("restore")
    assert host.read(UNIT) == "one"
    done = host.systemctl()
    assert done[0] == "stop vllm-readiness.service vllm.service vllm@0.service vllm@1.service"
    assert "disable --quiet vllm@0.service vllm@1.service" in done
    assert "enable --quiet vllm.service" in done
    assert "start --no-block vllm.service" in done
