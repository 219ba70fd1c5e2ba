"""The preflight with scripts in place of the host's programs: each failure alone, and all of them together."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Program

H200 = "NVIDIA H200, 143771 MiB, 580.159.04"
GOOD = {
    "nvidia-smi": f"echo '{H200}'; echo '{H200}'",
    "systemctl": "echo active",
    "getent": "echo '127.0.1.1 STREAM vm'",
    "cc": "",
}


class Machine:
    """Runs the preflight with nothing but these programs on PATH."""

    def __init__(self, program: Program) -> None:
        self.program, self.folder = program, program.folder / "bin"
        self.folder.mkdir()
        self.models = program.folder / "models"
        self.models.mkdir()
        for name, script in GOOD.items():
            self.install(name, script)

    def install(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.folder / name).chmod(0o755)

    def check(self, **change: Any) -> tuple[int, dict[str, Any], str]:
        result = self.program.folder / "preflight.result"
        config = {
            "min_disk_bytes": 1,
            "models": str(self.models),
            "driver_floor": "580.65",
            "gpus": {"name": "H200", "count": 2},
            "nvswitch": True,
            "result": str(result),
        } | change
        command = self.program.command(**config)
        environment = os.environ | {"PATH": str(self.folder)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return run.returncode, json.loads(result.read_text()) if result.exists() else {}, run.stderr


@pytest.fixture
def machine(program: Callable[[str], Program]) -> Machine:
    return Machine(program("preflight"))


def test_a_suitable_machine_passes(machine: Machine) -> None:
    code, result, errors = machine.check()
    assert (code, errors) == (0, "")
    assert (result["passed"], result["error"]) == (True, None)


@pytest.mark.parametrize(
    ("name", "script", "check", "message"),
    [
        ("nvidia-smi", "exit 9", "driver", "no working NVIDIA driver"),
        ("nvidia-smi", "echo 'NVIDIA H200, 1 MiB, 570.211.01'", "driver", "570.211.01 is older than 580.65"),
        ("nvidia-smi", f"echo '{H200}'", "gpus", "expected 2 x H200, found: NVIDIA H200 (143771 MiB)"),
        ("nvidia-smi", "echo 'NVIDIA GH200 480GB, 1 MiB, 580.159.04'", "gpus", "expected 2 x H200"),
        ("nvidia-smi", "", "driver", "nvidia-smi lists no GPU; delete this machine and rent another"),
        (
            "nvidia-smi",
            "",
            "gpus",
            "expected 2 x H200, found: none; delete this machine and rent another offer",
        ),
        ("nvidia-smi", "echo 'Failed to initialize NVML' >&2; exit 18", "gpus", "Failed to initialize NVML"),
        ("systemctl", "echo inactive; exit 3", "fabric", "systemctl start nvidia-fabricmanager"),
        (
            "systemctl",
            "echo failed; exit 3",
            "fabric",
            "`systemctl is-active nvidia-fabricmanager` failed: failed",
        ),
        ("getent", "exit 2", "name", "does not resolve; add `127.0.1.1"),
    ],
)
def test_each_failure_says_what_is_wrong_and_what_to_do(
    machine: Machine, name: str, script: str, check: str, message: str
) -> None:
    machine.install(name, script)
    code, result, errors = machine.check()
    assert code == 1
    assert message in result["failures"][check]
    assert message in errors


def test_disk_and_compiler(machine: Machine, tmp_path: Path) -> None:
    _, result, _ = machine.check(min_disk_bytes=1 << 60)
    assert "grow the volume (storage)" in result["failures"]["disk"]
    _, result, _ = machine.check(models=str(tmp_path / "absent"))
    assert "does not exist" in result["failures"]["disk"]
    _, result, _ = machine.check(mount=True)
    assert "our volume is not mounted" in result["failures"]["disk"]
    (machine.folder / "cc").unlink()
    _, result, _ = machine.check(needs_compiler=True)
    assert "no C compiler" in result["failures"]["compiler"]


def test_python_headers_are_those_of_the_engines_python(machine: Machine, tmp_path: Path) -> None:
    python, include = tmp_path / "python", tmp_path / "include"
    include.mkdir()
    python.write_text(f"#!/bin/bash\necho {include}\n")
    python.chmod(0o755)
    _, result, _ = machine.check(needs_compiler=True, python=str(python))
    assert f"{include}/Python.h is missing" in result["failures"]["compiler"]
    assert "apt-get install python3-dev" in result["failures"]["compiler"]
    (include / "Python.h").touch()
    assert machine.check(needs_compiler=True, python=str(python))[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": {}}, "unknown keys gpu; known are"),
        ({"gpus": {"name": "H200"}}, "'count'; run `pulumi up` again"),
    ],
)
def test_a_wrong_configuration_is_an_error(machine: Machine, change: dict[str, Any], message: str) -> None:
    code, _, errors = machine.check(**change)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors


def test_space_used_by_weights_counts_as_available(machine: Machine) -> None:
    (machine.models / "weights").mkdir()
    (machine.models / "weights" / "a").write_bytes(bytes(50_000_000))
    room = os.statvfs(machine.models)
    code, _, _ = machine.check(min_disk_bytes=room.f_bavail * room.f_frsize + 20_000_000)
    assert code == 0


def test_all_failures_are_reported_together(machine: Machine) -> None:
    for name in ("nvidia-smi", "getent"):
        machine.install(name, "exit 1")
    code, result, errors = machine.check(min_disk_bytes=1 << 60)
    assert code == 1
    assert set(result["failures"]) == {"driver", "gpus", "disk", "name"}
    assert len(errors.splitlines()) == 4


def test_a_missing_cuda_device_is_created(machine: Machine) -> None:
    device = machine.program.folder / "nvidia-uvm"
    machine.install("nvidia-modprobe", f'echo "$@" >>{device}')
    for _ in range(2):
        assert machine.check(uvm=str(device))[0] == 0
    assert device.read_text() == "-u -c 0\n"


def test_a_stack_without_gpus_needs_none(machine: Machine) -> None:
    machine.install("nvidia-smi", "exit 1")
    code, _, _ = machine.check(gpus=None, driver_floor=None, nvswitch=False)
    assert code == 0


def test_a_clock_far_from_the_hubs_fails(machine: Machine, small_hub: Callable[..., Any]) -> None:
    hub = small_hub({})
    assert machine.check(endpoint=hub.url)[0] == 0
    hub.server.RequestHandlerClass.do_HEAD = lambda self: self.answer(200)
    hub.server.RequestHandlerClass.date_time_string = lambda _: "Thu, 01 Jan 2026 00:00:00 GMT"
    assert "set the clock" in machine.check(endpoint=hub.url)[1]["failures"]["clock"]


def test_a_program_that_cannot_be_started_fails(machine: Machine) -> None:
    (machine.folder / "nvidia-smi").chmod(0o644)
    code, result, errors = machine.check()
    assert code == 1
    assert (
        "nvidia-smi can't be started (Permission denied); the image has no working NVIDIA" in result["error"]
    )
    assert "Traceback" not in errors
