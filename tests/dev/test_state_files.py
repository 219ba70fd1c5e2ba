"""The engine never rewrites or deletes a tracked stack file: a small program through the whole of ./dev."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

CHECKOUT = Path(__file__).parents[2]
PROGRAM = """\
import pulumi

config = pulumi.Config()
pulumi.export("context", config.require_object("server")["context"])
pulumi.export("token", config.get_secret("token"))
"""
# The engine would write 9, sort the comment away and add an encryption salt.
STACK = """\
# A comment, and a price with two decimals.
config:
  pulumi-vllm:server:
    context: 32Ki   # tokens
    max_usd_per_hour: 9.00
"""


class Clone:
    """A checkout of its own, with its own state; the Python environment and the engine are shared."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stack = root / "stacks" / "Pulumi.demo.yaml"
        for name in ("dev", "toolchain", "requirements", "Pulumi.yaml", ".gitignore"):
            source = CHECKOUT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
        (root / "provider").mkdir()
        (root / ".venv").symlink_to(CHECKOUT / ".venv")
        (root / "__main__.py").write_text(PROGRAM)
        self.stack.parent.mkdir()
        self.stack.write_text(STACK)
        (root / ".gitignore").write_text("/.venv\n.pulumi-vllm/\n__pycache__/\n")
        self.git("init", "-q")
        self.commit()

    def git(self, *args: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return subprocess.run(
            ("git", *who, *args), cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def dev(self, *args: str, stdin: str = "") -> str:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "SPHERON_"))}
        done = subprocess.run(
            (self.root / "dev", *args),
            cwd="/",
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    made = Clone(tmp_path_factory.mktemp("clone"))
    yield made
    assert made.git("status", "--porcelain") == ""


def test_a_life_of_a_stack_leaves_git_clean(clone: Clone) -> None:
    clone.dev("pulumi", "stack", "init", "demo")
    clone.dev("pulumi", "config", "set", "--path", "server.context", "64Ki")
    clone.dev("pulumi", "config", "set", "--secret", "token", stdin="hunter2")
    clone.dev("pulumi", "up", "--yes")
    assert clone.dev("pulumi", "stack", "output", "context").strip() == "64Ki"
    assert clone.git("status", "--porcelain") == ""

    # What changes in the tracked file arrives; what the user has set stays.
    clone.stack.write_text(STACK.replace("32Ki", "16Ki") + "  pulumi-vllm:extra: new\n")
    clone.commit()
    assert clone.dev("pulumi", "config", "get", "extra").strip() == "new"
    assert clone.dev("pulumi", "config", "get", "--path", "server.context").strip() == "64Ki"
    assert clone.dev("pulumi", "config", "get", "token").strip() == "hunter2"
    assert clone.git("status", "--porcelain") == ""

    clone.dev("pulumi", "destroy", "--yes")
    clone.dev("pulumi", "stack", "rm", "--yes", "demo")
    assert clone.git("status", "--porcelain") == ""
    assert clone.stack.exists()
    # The same name again: its settings and its passphrase still fit.
    clone.dev("pulumi", "stack", "init", "demo")
    clone.dev("pulumi", "preview", "--stack", "demo")
    assert clone.dev("pulumi", "config", "get", "token").strip() == "hunter2"


def test_the_passphrase_is_made_once_and_private(clone: Clone) -> None:
    clone.dev("pulumi", "stack", "ls")
    passphrase = clone.root / ".pulumi-vllm" / "passphrase"
    before = passphrase.read_text()
    clone.dev("pulumi", "stack", "ls")
    assert passphrase.read_text() == before
    assert len(before) > 32
    assert passphrase.stat().st_mode & 0o777 == 0o600
