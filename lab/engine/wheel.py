"""An engine's own wheel in a temporary environment, for programs that ask it what it accepts. No GPU is needed."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
ENGINES = HERE.parents[1] / "components/pulumi_vllm/plan/data/engines"
# Large, and needed neither by the parser nor by the configuration: kernels, sound and video codecs, compilers.
LEFT_OUT = (
    "flashinfer", "humming-kernels", "nvidia-cuda-nvcc", "nvidia-cutlass", "nvidia-cudnn-frontend", "pynvvideocodec",
    "quack-kernels", "tilelang", "tokenspeed", "torchaudio", "torchcodec", "z3-solver",
)  # fmt: skip


@contextlib.contextmanager
def installed(version: str) -> Iterator[pathlib.Path]:
    """The Python of a temporary environment of about 5 GB that holds the engine as its lock pins it."""
    lock = ENGINES / version / f"requirements-3.{sys.version_info.minor}.txt"
    if not lock.exists():
        sys.exit(f"{lock}: not found; run this program with a Python version that {version} has a lock for")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        here = pathlib.Path(folder)
        pins = [line.split()[0] for line in lock.read_text().splitlines() if line[:1].isalpha()]
        (here / "pins.txt").write_text("".join(f"{pin}\n" for pin in pins if not pin.startswith(LEFT_OUT)))
        python = here / "venv/bin/python"
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, here / "venv"], check=True)
        install = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--python",
            python,
            "-r",
            here / "pins.txt",
        ]
        subprocess.run(install, check=True)
        yield python


def ask(python: pathlib.Path, program: str, *words: str) -> str:
    """Run a program of this folder in the environment, and return what it wrote to the file that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        answer = pathlib.Path(folder, "answer.json")
        environment = {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "CRITICAL",
            "HF_HUB_OFFLINE": "1",
            "HOME": folder,
            "TMPDIR": folder,
            "PATH": "/usr/bin:/bin",
        }
        asked = subprocess.run(
            [python, HERE / program, answer, *words],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            sys.exit(f"{program}: vLLM could not be asked:\n{asked.stderr[-3000:]}")
        return answer.read_text()
