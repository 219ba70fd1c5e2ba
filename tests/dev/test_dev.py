"""What ./dev says before it does anything, and what it stands on."""

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


def test_help_names_every_command() -> None:
    done = dev("help")
    assert done.returncode == 0
    named = re.findall(r"^\./dev (\w+)", done.stdout, re.MULTILINE)
    assert named == [
        "up",
        "down",
        "test",
        "check",
        "smoke",
        "bench",
        "sweep",
        "pulumi",
        "doctor",
        "lock",
    ]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("upp",), "upp: unknown command"),
        (("up", "nowhere"), "up: no stacks/Pulumi.nowhere.yaml; there are:"),
        (("up", "--fast"), "up: --fast: unknown"),
        (("up", "--engine", "imaginary"), "--engine imaginary: real, fake or none"),
        (
            ("up", "spheron-h200-2x-fp8"),
            "SPHERON_API_KEY is not set; export it, or run it here: ./dev up",
        ),
        (("down", "--all"), "down: --all: unknown"),
        (("test", "some"), "test: some: fast, ci or all"),
    ],
)
def test_a_wrong_call_is_answered_by_a_sentence(args: tuple[str, ...], sentence: str) -> None:
    done = dev(*args)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("lock", ["dev", "uv", "go"])
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    text = (CHECKOUT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"\n(?=[a-z])", text)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def test_the_older_language_host_finds_pip() -> None:
    assert re.search(r"^pip==", (CHECKOUT / "requirements" / "dev.txt").read_text(), re.MULTILINE)


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


def test_the_greeting_is_a_command_without_the_key(tmp_path: Path) -> None:
    done = greet(
        tmp_path,
        {"endpoint": "https://10.0.0.2/v1", "model": "m", "ca_certificate": "PEM", "api_key": "[secret]"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".pulumi-vllm" / "local-ca.pem").read_text() == "PEM"
    command = done.stdout[done.stdout.index("curl") :]
    # The shell agrees that it is one command of the parts meant.
    shell = 'curl() { printf "%s\\n" "$@"; }; ' + command.replace("./dev pulumi", "echo")
    words = subprocess.run(
        ("bash", "-c", shell), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[-1] == "https://10.0.0.2/v1/chat/completions"
    assert json.loads(words[-2])["model"] == "m"
    assert words[3].startswith("Authorization: Bearer stack output api_key --show-secrets")


def test_a_stack_without_an_endpoint_is_not_greeted(tmp_path: Path) -> None:
    done = greet(tmp_path, {"model": "m"})
    assert done.returncode == 1
    assert "stack local: has no output endpoint, ca_certificate" in done.stderr
