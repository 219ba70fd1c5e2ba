"""The messages of ./dev, the requirement locks, and the greeting after `up`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def dev(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "SPHERON_"))}
    return subprocess.run(
        (CHECKOUT / "dev", *args), cwd="/", env={**kept, **env}, capture_output=True, text=True, check=False
    )


def test_help_lists_every_command() -> None:
    done = dev("help")
    assert done.returncode == 0
    named = re.findall(r"^\./dev (\w+)", done.stdout, re.MULTILINE)
    assert named == [
        "up",
        "down",
        "test",
        "check",
        "drift",
        "smoke",
        "bench",
        "sweep",
        "pulumi",
        "doctor",
        "lock",
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("upp",), "upp: unknown command"),
        (("up", "nowhere"), "up: stacks/Pulumi.nowhere.yaml does not exist; choose one of:"),
        (("up", "--fast"), "up: --fast: unknown option"),
        (("up", "--engine", "imaginary"), "--engine imaginary: unknown engine; choose real, fake or none"),
        (
            ("up", "spheron-h200-2x-fp8"),
            "SPHERON_API_KEY is not set; export it, or run the stack on the local cloud: ./dev up",
        ),
        (("down", "--all"), "down: --all: unknown option"),
        (("test", "some"), "test: some: unknown tier; choose fast, ci or all"),
    ],
)
def test_a_wrong_call_ends_with_a_message(args: tuple[str, ...], message: str) -> None:
    done = dev(*args)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("lock", ["dev", "uv", "go"])
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    text = (CHECKOUT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"\n(?=[a-z])", text)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def test_pip_is_locked_for_the_older_language_host() -> None:
    assert re.search(r"^pip==", (CHECKOUT / "requirements" / "dev.txt").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("refusals", "message", "code", "tries"),
    [
        (2, "E: Could not get lock /var/lib/apt/lists/lock.", 0, 3),
        (1, "E: Unable to locate package x", 100, 1),
    ],
)
def test_another_apt_is_waited_for_and_no_other_error(
    tmp_path: Path, refusals: int, message: str, code: int, tries: int
) -> None:
    apt, calls = tmp_path / "apt-get", tmp_path / "calls"
    refuse = f'[ "$(wc -l < {calls})" -gt {refusals} ] || {{ echo "{message}" >&2; exit 100; }}'
    apt.write_text(f"#!/bin/sh\necho call >> {calls}\n{refuse}\n")
    apt.chmod(0o755)
    text = (CHECKOUT / "dev.d" / "bootstrap.sh").read_text()
    (function,) = re.findall(r"^patient_apt\(\) \{.*?^\}", text, re.DOTALL | re.MULTILINE)
    script = f"sleep() {{ :; }}\n{function}\npatient_apt update"
    kept = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(("bash", "-uc", script), env=kept, capture_output=True, text=True, check=False)
    assert (done.returncode, len(calls.read_text().splitlines())) == (code, tries)
    assert message in done.stdout


def greet(folder: Path, outputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / ".pulumi-vllm").mkdir()
    return subprocess.run(
        (sys.executable, CHECKOUT / "dev.d" / "greeting.py", "local", "."),
        cwd=folder,
        input=json.dumps(outputs),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_greeting_is_a_command_that_fetches_the_key(tmp_path: Path) -> None:
    done = greet(
        tmp_path,
        {"endpoint": "https://10.0.0.2/v1", "model": "m", "ca_certificate": "PEM", "api_key": "[secret]"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".pulumi-vllm" / "local-ca.pem").read_text() == "PEM"
    command = done.stdout[done.stdout.index("curl") :]
    # A shell must parse it as one command with the right arguments.
    shell = 'curl() { printf "%s\\n" "$@"; }; ' + command.replace("./dev pulumi", "echo")
    words = subprocess.run(
        ("bash", "-c", shell), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[-1] == "https://10.0.0.2/v1/chat/completions"
    assert json.loads(words[-2])["model"] == "m"
    assert words[3].startswith("Authorization: Bearer stack output api_key --show-secrets")


def test_a_stack_without_an_endpoint_gets_an_error(tmp_path: Path) -> None:
    done = greet(tmp_path, {"model": "m"})
    assert done.returncode == 1
    assert "stack local: output missing: endpoint, ca_certificate" in done.stderr
