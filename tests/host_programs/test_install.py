"""The installation from a lock, with a real uv and a small wheel: stamps, swap, wrong hashes, kills."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Program

UV_LOCK = Path(__file__).parents[2] / "components/pulumi_vllm/plan/data/engines/requirements-uv.txt"
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


def wheel(folder: Path, version: str) -> str:
    """Write a wheel of one module, and return its line for a lock."""
    about = f"engine-{version}.dist-info"
    files = {
        "engine.py": f"VERSION = {version!r}\n",
        "humming/include/humming/scheduler.cuh": "// one of the headers that a cache of kernels names\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: engine\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def row(path: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        return f"{path},sha256={digest},{len(text)}\n"

    record = "".join(row(*item) for item in files.items()) + f"{about}/RECORD,,\n"
    place = folder / f"engine-{version}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as out:
        for path, text in {**files, f"{about}/RECORD": record}.items():
            out.writestr(path, text)
    return f"engine=={version} --hash=sha256:{hashlib.sha256(place.read_bytes()).hexdigest()}\n"


class Host:
    """A host that has uv already."""

    def __init__(self, program: Program) -> None:
        self.program, self.folder = program, program.folder
        self.venv, self.lock = self.folder / "opt" / "vllm", self.folder / "requirements.txt"
        self.wheels = self.folder / "wheels"
        for folder in (self.venv.parent, self.wheels, self.folder / "state" / "uv" / "bin"):
            folder.mkdir(parents=True)
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if uv is None:
            pytest.skip("uv is not installed")
        (self.folder / "state/uv/bin/uv").symlink_to(uv)
        (self.folder / "uv.txt").write_text("uv==1\n")
        stamp = hashlib.sha256(b"uv==1\n").hexdigest()
        (self.folder / "state/uv/.stamp").write_text(stamp + "\n")

    @property
    def config(self) -> dict[str, Any]:
        return {
            "engine": "small",
            "locks": {MINOR: str(self.lock)},
            "uv_lock": str(self.folder / "uv.txt"),
            "venv": str(self.venv),
            "extra_args": ["--no-index", "--find-links", str(self.wheels)],
            "progress": str(self.folder / "progress.json"),
            "state": str(self.folder / "state"),
            "python": sys.executable,
        }

    def install(self, **change: Any) -> subprocess.CompletedProcess[str]:
        return self.program(**self.config | change)

    def switch(self) -> None:
        run = self.program("--switch", **self.config)
        assert (run.returncode, run.stderr) == (0, "")

    def version(self) -> str:
        command = [str(self.venv / "bin" / "python"), "-c", "import engine; print(engine.VERSION)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def progress(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / "progress.json").read_text())
        return record


@pytest.fixture
def host(program: Callable[[str], Program]) -> Host:
    return Host(program("install"))


@pytest.mark.ci
def test_an_engine_is_installed_once_and_replaced_by_another_lock(host: Host) -> None:
    host.lock.write_text(wheel(host.wheels, "1.0"))
    first = host.install()
    assert (first.returncode, first.stderr) == (0, "")
    assert host.version() == "1.0"
    assert host.venv.is_symlink()
    stamp = hashlib.sha256(host.lock.read_bytes()).hexdigest()
    assert (host.venv / ".stamp").read_text() == stamp + "\n"
    assert list((host.venv / "lib").glob("*/site-packages/__pycache__/engine.*.pyc"))
    (header,) = (host.venv / "lib").glob("*/site-packages/humming/include/humming/*.cuh")
    assert header.stat().st_mtime == 0, "the volume's cache of kernels must be another host's too"
    assert (host.progress()["done"], host.progress()["phase"]) == (True, "done")
    assert "already installed" in host.install().stdout

    before = host.venv.resolve()
    host.lock.write_text(wheel(host.wheels, "2.0"))
    for _ in range(2):
        assert "vLLM runs from it after its next start" in host.install().stdout
        assert (host.version(), host.venv.resolve()) == (
            "1.0",
            before,
        )  # a running engine still imports from it
    host.switch()
    assert host.version() == "2.0"
    assert before.is_dir()


@pytest.mark.ci
def test_a_lock_that_returns_before_the_next_start_keeps_the_engine(host: Host) -> None:
    first, second = wheel(host.wheels, "1.0"), wheel(host.wheels, "2.0")
    for lock in (first, second, first):
        host.lock.write_text(lock)
        assert host.install().returncode == 0
    host.switch()
    assert host.version() == "1.0"


@pytest.mark.ci
def test_a_damaged_engine_is_installed_beside_the_one_that_runs(host: Host) -> None:
    host.lock.write_text(wheel(host.wheels, "1.0"))
    for _ in range(3):
        assert host.install().returncode == 0
        before = host.venv.resolve()
        (host.venv / ".stamp").unlink()
        assert host.install().returncode == 0
        assert host.venv.resolve() == before
        assert host.version() == "1.0"
        host.switch()
        assert host.venv.resolve() != before
        assert host.version() == "1.0"


@pytest.mark.ci
def test_an_edited_file_does_not_come_back_from_the_cache(host: Host) -> None:
    """The cache of uv has the same file: both are names of one inode."""
    host.lock.write_text(wheel(host.wheels, "1.0"))
    assert host.install().returncode == 0
    for number in range(2):
        (place,) = (host.venv / "lib").glob("*/site-packages/engine.py")
        assert place.stat().st_nlink > 1
        with place.open("a") as out:
            out.write(f"VERSION = 'edited {number}'\n")
        (host.venv / ".stamp").unlink()
        assert host.install().returncode == 0
        host.switch()
        assert host.version() == "1.0"


@pytest.mark.ci
def test_a_wrong_hash_is_an_error_and_the_old_engine_stays(host: Host) -> None:
    host.lock.write_text(wheel(host.wheels, "1.0"))
    assert host.install().returncode == 0
    host.lock.write_text("engine==1.0 --hash=sha256:" + "0" * 64 + "\n")
    wrong = host.install()
    assert wrong.returncode == 3
    assert "a package differs from the lock" in wrong.stderr
    assert "a package differs" in host.progress()["error"]
    assert host.version() == "1.0"


@pytest.mark.ci
def test_a_kill_leaves_the_old_engine_and_the_next_run_completes(host: Host) -> None:
    host.lock.write_text(wheel(host.wheels, "1.0"))
    assert host.install().returncode == 0
    host.lock.write_text(wheel(host.wheels, "2.0"))
    for after in (0.15, 0.25, 0.4):
        with subprocess.Popen(
            host.program.command(**host.config), stdout=subprocess.DEVNULL, start_new_session=True
        ) as run:
            time.sleep(after)
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
        assert host.version() in ("1.0", "2.0")
    assert host.install().returncode == 0
    host.switch()
    assert host.version() == "2.0"


@pytest.mark.ci
def test_a_directory_from_an_image_is_replaced(host: Host) -> None:
    host.lock.write_text(wheel(host.wheels, "1.0"))
    (host.venv / "bin").mkdir(parents=True)
    (host.venv / ".stamp").write_text("0" * 64 + "\n")
    assert host.install().returncode == 0
    assert host.version() == "1.0"


def test_the_stamp_of_any_lock_is_honoured(host: Host, tmp_path: Path) -> None:
    host.lock.write_text("engine==1.0\n")
    (tmp_path / "other.txt").write_text("engine==1.1\n")
    (host.venv / "bin").mkdir(parents=True)
    (host.venv / "bin" / "python").symlink_to(sys.executable)
    stamp = hashlib.sha256(b"engine==1.1\n").hexdigest()
    (host.venv / ".stamp").write_text(f"{'0' * 64}\n{stamp}\n")
    run = host.install(locks={MINOR: str(host.lock), "3.99": str(tmp_path / "other.txt")})
    assert run.returncode == 0
    assert "already installed" in run.stdout
    assert not host.venv.is_symlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"locks": {}}, "the catalogue has no lock for this engine"),
        ({"locks": {MINOR: "/nowhere"}}, "/nowhere: can't be read"),
        ({"python": "/nowhere"}, "/nowhere: does not run"),
        ({"more": 1}, "unknown keys more"),
    ],
)
def test_a_wrong_configuration_is_an_error(host: Host, change: dict[str, Any], message: str) -> None:
    host.lock.write_text("engine==1.0\n")
    run = host.install(**change)
    assert run.returncode == 2
    assert message in run.stderr


@pytest.mark.ci
def test_uv_comes_from_its_hashed_lock(host: Host) -> None:
    shutil.rmtree(host.folder / "state" / "uv")
    host.lock.write_text(wheel(host.wheels, "1.0"))
    run = host.install(uv_lock=str(UV_LOCK))
    assert (run.returncode, run.stderr) == (0, "")
    assert host.version() == "1.0"
    assert (host.folder / "state/uv/bin/uv").is_file()
