"""The preflight with scripts in place of the host's programs: each failure alone, and all of them together."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Program


CAPTURED = Path(__file__).parents[2] / "components/pulumi_vllm_local/images/captured"
H200, H100 = (
    gzip.decompress((CAPTURED / f"{gpu}-x2/nvidia-smi-q.xml.gz").read_bytes()).decode()
    for gpu in ("h200", "h100")
)
"""What `nvidia-smi -q -x` printed on machines with two GPUs."""
GPUS = {"name": "H200", "named": ["H200"], "count": 2, "memory_mib": 143771}


def prints(report: str) -> str:
    """A script in place of nvidia-smi."""
    return f"[ \"$*\" = '-q -x' ] || exit 6\nread -r -d '' report <<'END'\n{report}\nEND\nprintf '%s' \"$report\""


def changed(*pairs: tuple[str, str], of: str = H200) -> str:
    """The report with other texts in its first places."""
    for old, new in pairs:
        assert old in of, old
        of = of.replace(old, new, 1)
    return prints(of)


def without_gpu(*, left: int) -> str:
    """The report with fewer GPUs."""
    parts = re.split(r"(?=\t<gpu id)|(?=</nvidia_smi_log>)", H200)
    return prints("".join([parts[0], *parts[1 : 1 + left], parts[-1]]))


GOOD = {
    "nvidia-smi": prints(H200),
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
            "gpus": GPUS,
            "engine_processes": str(self.program.folder / "cgroup.procs"),
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
        ("nvidia-smi", "exit 9", "driver", "no working NVIDIA driver, choose another operating system"),
        ("nvidia-smi", changed(("580.159.04", "570.211.01")), "driver", "570.211.01 is older than 580.65"),
        (
            "nvidia-smi",
            changed(("580.159.04", "[N/A]")),
            "driver",
            "does not tell the driver's version ([N/A]); reboot the machine",
        ),
        (
            "nvidia-smi",
            without_gpu(left=1),
            "gpus",
            "expected 2 x H200, found: NVIDIA H200 (143771 MiB); use another machine",
        ),
        ("nvidia-smi", changed(("NVIDIA H200", "NVIDIA GH200 480GB")), "gpus", "expected 2 x H200"),
        ("nvidia-smi", without_gpu(left=0), "driver", "nvidia-smi lists no GPU; use another machine"),
        ("nvidia-smi", without_gpu(left=0), "gpus", "expected 2 x H200, found: none; use another machine"),
        ("nvidia-smi", "echo 'Failed to initialize NVML' >&2; exit 18", "gpus", "Failed to initialize NVML"),
        (
            "nvidia-smi",
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "driver",
            "the driver was updated while its old kernel module runs; reboot the machine",
        ),
        (
            "nvidia-smi",
            "echo 'Unable to determine the device handle for GPU0: 0000:06:00.0: GPU is lost.'; exit 15",
            "driver",
            "a GPU no longer answers; reboot the machine; if that does not help, use another machine",
        ),
        (
            "nvidia-smi",
            "echo 'No devices were found'; exit 6",
            "driver",
            "the machine has no GPU; use another machine",
        ),
        ("nvidia-smi", "echo '<nvidia_smi_log>'", "driver", "printed no XML"),
        (
            "nvidia-smi",
            changed(("<current_mig>Disabled", "<current_mig>Enabled")),
            "gpus",
            "GPU 0 (NVIDIA H200 (143771 MiB)): MIG divides it, and vLLM needs it whole; `nvidia-smi -i 0 -mig 0`",
        ),
        (
            "nvidia-smi",
            changed(("<gpu_recovery_action>None", "<gpu_recovery_action>Reset")),
            "gpus",
            "the driver asks for: Reset; reboot the machine",
        ),
        (
            "nvidia-smi",
            changed(("143771 MiB", "[GPU requires reset]")),
            "gpus",
            "GPU 0 (NVIDIA H200 ([GPU requires reset])): the driver asks for: Reset; reboot the machine",
        ),
        (
            "nvidia-smi",
            changed(("<used>0 MiB", "<used>72704 MiB")),
            "gpus",
            "72704 MiB are in use by others (no process of this machine is listed",
        ),
        (
            "nvidia-smi",
            changed(("143771 MiB", "96000 MiB")),
            "gpus",
            "GPU 0 (NVIDIA H200 (96000 MiB)): the plan counts on 143771 MiB; use another machine",
        ),
        ("nvidia-smi", changed(("143771 MiB", "Unknown Error")), "gpus", "its memory can't be read; reboot"),
        (
            "nvidia-smi",
            changed(("NVIDIA H200", "NVIDIA H200 NVL")),
            "gpus",
            "the NVL card is not the H200 that was planned; use another machine",
        ),
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


PROCESS = "<process_info><pid>4242</pid><used_memory>72000 MiB</used_memory></process_info>"


def test_the_memory_of_the_running_engine_is_not_in_the_way(machine: Machine) -> None:
    in_use = (("<used>0 MiB", "<used>72704 MiB"), ("<processes>", f"<processes>{PROCESS}"))
    machine.install("nvidia-smi", changed(*in_use))
    _, result, _ = machine.check()
    assert "in use by others (process 4242 72000 MiB); end them" in result["failures"]["gpus"]
    (machine.program.folder / "cgroup.procs").write_text("4241\n4242\n")
    assert machine.check()[0] == 0
    # A driver in a container lists no process. With an engine that runs, the memory may be the engine's.
    machine.install("nvidia-smi", changed(in_use[0]))
    assert machine.check()[0] == 0


def test_an_h100_on_a_card_is_not_the_planned_h100(machine: Machine) -> None:
    planned = {"name": "H100", "named": ["H100"], "count": 2, "memory_mib": 81559}
    machine.install("nvidia-smi", prints(H100))
    assert machine.check(gpus=planned)[0] == 0
    machine.install("nvidia-smi", changed(("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"), of=H100))
    assert "the PCIe card is not the H100" in machine.check(gpus=planned)[1]["failures"]["gpus"]
    card = planned | {"name": "H100 PCIe", "named": ["H100", "PCIe"]}
    machine.install("nvidia-smi", prints(H100.replace("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe")))
    assert machine.check(gpus=card)[0] == 0
    machine.install("nvidia-smi", prints(H100))
    assert "a module on a board is not the H100 PCIe" in machine.check(gpus=card)[1]["failures"]["gpus"]


def test_a_driver_that_hangs_is_not_waited_for(machine: Machine) -> None:
    machine.install("nvidia-smi", "exec /bin/sleep 60 >/dev/null 2>&1")
    started = time.monotonic()
    _, result, _ = machine.check(nvidia_smi_timeout_s=1)
    assert time.monotonic() - started < 20
    message = "`nvidia-smi -q -x` did not answer within 1 s; the driver hangs; reboot the machine"
    assert message in result["failures"]["driver"]
    assert message in result["failures"]["gpus"]
    assert result["error"].count(message) == 1


def test_memory_and_root_disk(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       4096 kB\nMemFree:       1 kB\n")
    _, result, _ = machine.check(min_ram_bytes=1 << 30, meminfo=str(tmp_path / "meminfo"))
    assert result["failures"]["memory"].startswith("1.0 GiB of RAM needed, but the machine has 0.0 GiB;")
    stamp, lock = tmp_path / "vllm/.stamp", tmp_path / "lock"
    lock.write_text("vllm==1\n")
    engine = {"engine_bytes": 1 << 60, "engine_stamp": str(stamp), "engine_locks": [str(lock)]}
    _, result, _ = machine.check(**engine)
    assert "needed for the engine, but only" in result["failures"]["root_disk"]
    assert str(tmp_path) in result["failures"]["root_disk"]
    assert machine.check(**engine | {"engine_bytes": 1})[0] == 0
    stamp.parent.mkdir()
    stamp.write_text(hashlib.sha256(lock.read_bytes()).hexdigest() + "\n")
    assert machine.check(**engine)[0] == 0


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
