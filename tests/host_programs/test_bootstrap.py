"""Parts of the bootstrap, run by bash with the real apt-get."""

from __future__ import annotations

import fcntl
import re
import subprocess
import threading
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/bootstrap.j2"


def patient_apt(folder: Path, verb: str) -> subprocess.CompletedProcess[str]:
    """Run the function of the bootstrap on package lists of our own, without a source."""
    (function,) = re.findall(r"^patient_apt\(\) \{\n.*?^\}$", BOOTSTRAP.read_text(), re.MULTILINE | re.DOTALL)
    options = [f"Dir::State={folder}", f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache"]
    options += [
        "Dir::Etc::SourceList=/dev/null",
        "Dir::Etc::SourceParts=/dev/null",
        "APT::Sandbox::User=root",
    ]
    apt = " ".join(["apt-get", "-q", "-y", *(f"-o {option}" for option in options)])
    instead = "log() { echo bootstrap: $*; }\nsleep() { command sleep 0.3; }"
    script = f"{instead}\n{function}\napt=({apt})\npatient_apt {verb}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(
        command,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("lists/partial", "cache/archives/partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "status").touch()
    return tmp_path


def test_apt_waits_for_the_lock_of_the_package_lists(folder: Path) -> None:
    with (folder / "lists/lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        release = threading.Timer(1.5, lambda: fcntl.lockf(lock, fcntl.LOCK_UN))
        release.start()
        run = patient_apt(folder, "update")
        release.join()
    assert run.returncode == 0, run.stdout
    assert "bootstrap: another apt runs; trying again" in run.stdout


def test_another_error_of_apt_is_not_waited_for(folder: Path) -> None:
    run = patient_apt(folder, "install no-such-package-anywhere")
    assert run.returncode == 100
    assert "trying again" not in run.stdout
    assert "Unable to locate package" in run.stdout
