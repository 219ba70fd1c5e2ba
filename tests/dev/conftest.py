"""Checkouts in which ./dev runs. Each has its own state, program and stacks, and shares this checkout's environment."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def borrow_environment(root: Path) -> None:
    """Give a checkout a .venv of links to this checkout's, which ./dev accepts as up to date."""
    made, source = root / ".venv", CHECKOUT / ".venv"
    (made / "bin").mkdir(parents=True)
    for entry in (*source.iterdir(), *(source / "bin").iterdir()):
        if entry.name not in {"bin", "pyvenv.cfg", ".lock"}:
            (made / entry.relative_to(source)).symlink_to(entry)
    shutil.copy(source / "pyvenv.cfg", made)
    (made / ".lock").write_text((source / ".lock").read_text().replace(str(CHECKOUT), str(root)))


class Clone:
    """A small git repository around ./dev; `cloud` is a placeholder for the command pulumi-vllm."""

    def __init__(self, root: Path, program: str, stacks: dict[str, str], cloud: str) -> None:
        self.root = root
        for name in ("dev", "dev.d", "requirements", "Pulumi.yaml"):
            source = CHECKOUT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
        (root / "provider").mkdir()
        (root / "__main__.py").write_text(program)
        (root / "stacks").mkdir()
        for name, text in stacks.items():
            (root / "stacks" / f"Pulumi.{name}.yaml").write_text(text)
        (root / ".gitignore").write_text(".venv/\n.pulumi-vllm/\n__pycache__/\n")
        borrow_environment(root)
        (root / ".venv/bin/pulumi-vllm").unlink()
        (root / ".venv/bin/pulumi-vllm").write_text(cloud)
        (root / ".venv/bin/pulumi-vllm").chmod(0o755)
        self.git("init", "-q")
        self.commit()

    def git(self, *args: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(("git", *who, *args), cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def run(self, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "SPHERON_"))
        }
        return subprocess.run(
            (self.root / "dev", *args),
            cwd="/",
            env=kept | env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def dev(self, *args: str, stdin: str = "", **env: str) -> str:
        done = self.run(*args, stdin=stdin, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def borrowed_environment() -> Callable[[Path], None]:
    return borrow_environment


@pytest.fixture(scope="module")
def make_clone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clone]:
    def make(program: str, stacks: dict[str, str], cloud: str = "#!/bin/sh\nexit 1\n") -> Clone:
        return Clone(tmp_path_factory.mktemp("clone"), program, stacks, cloud)

    return make
