"""The commands of the README, run in a fresh clone."""

import json
import os
import re
import shutil
import subprocess

import pytest
from harness import REPOSITORY


@pytest.fixture
def clone():
    # In a git-ignored folder of the checkout, because overlays need a real file system and /tmp may be small.
    folder = REPOSITORY / ".pulumi-vllm" / f"readme-{os.getpid()}"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def commands(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def run(folder, script: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "SPHERON_"))
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment | {"ENGINE": "fake"}, text=True, capture_output=True,
        check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_readme_commands_serve_a_model_and_keep_the_checkout_clean(clone):
    up, ask, *_ = commands((clone / "README.md").read_text())
    assert up.strip() == "./dev up"
    try:
        run(clone, up)
        answer = json.loads(run(clone, ask))
        assert (
            answer["choices"][0]["message"]["content"].strip() == "The quick brown fox jumps over a lazy dog."
        )
        assert run(clone, "./dev pulumi preview --expect-no-changes")
    finally:
        run(clone, "./dev down --purge")
    assert run(clone, "git status --porcelain") == ""
