#!/usr/bin/env python3
"""Install an engine's lock and import the modules that a start imports.

usage: import_check.py 0.26.0

uv installs the lock for the Python that runs this program into a temporary environment of about 9 GB. No GPU is
needed. vLLM states only the oldest transformers that it accepts. With a newer one the module of a model may fail to
import, and without this check that would show only when vLLM starts on a rented machine.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ENGINES = pathlib.Path(__file__).resolve().parents[2] / "components/pulumi_vllm/plan/data/engines"
MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.model_executor.models.pixtral",  # Mistral Small 4: the model with its vision tower,
    "vllm.model_executor.models.mistral_large_3",  # its text part,
    "vllm.tokenizers.mistral",
    "vllm.reasoning.mistral_reasoning_parser",
    "vllm.tool_parsers.mistral_tool_parser",
    "vllm.model_executor.models.qwen2",
)

TRY = r"""
import importlib, sys
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform
vllm.platforms._current_platform = CpuPlatform()  # a wheel for CUDA finds no device on this machine
failed = 0
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed += 1
        print(f"{name}: {type(error).__name__}: {error}")
sys.exit(failed > 0)
"""


def main() -> None:
    """Print the modules that cannot be imported, and exit with 1 if there are any."""
    (version,) = sys.argv[1:]
    lock = ENGINES / version / f"requirements-3.{sys.version_info.minor}.txt"
    if not lock.exists():
        sys.exit(f"{lock}: not found; run this program with a Python version that {version} has a lock for")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        python = pathlib.Path(folder, "venv/bin/python")
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
        install = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--python",
            python,
            "-r",
            lock,
        ]
        subprocess.run(install, check=True)
        environment = {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "CRITICAL",
            "PATH": "/usr/bin:/bin",
        }
        environment |= {"HOME": folder, "TMPDIR": folder}  # torch writes a cache in both
        tried = subprocess.run(
            [python, "-c", TRY, *MODULES],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if tried.returncode:
        sys.exit(
            f"{lock.name} of {version}: some modules cannot be imported; pin other versions under `locked` in engine.yaml:\n{tried.stdout or tried.stderr[-3000:]}"
        )
    print(f"{version}: {lock.name} imports all of {len(MODULES)} modules")


if __name__ == "__main__":
    main()
