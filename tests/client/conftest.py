"""A served model without a machine: the fake engine as a process, and a HAProxy with the gateway's configuration."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi_vllm.plan import Deployment, host_paths, plan
from pulumi_vllm_local import fake_engine
from pulumi_vllm_local.tiny_model import model_files

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
sys.path.insert(0, str(Path(__file__).parent))
from adapted import ENGINE_MODULES, HUB, KEY, MODEL, PARSERS
from rendered_gateway import Gateway, free_port

ROOT = Path(__file__).parents[2]


@dataclass
class Engine:
    """The fake engine as the local cloud runs it: the package under its other name, without site-packages."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    folder, running = tmp_path_factory.mktemp("engine"), []
    shutil.copytree(
        Path(fake_engine.__file__).parent, folder / "vllm", ignore=shutil.ignore_patterns("__pycache__")
    )
    for module in ENGINE_MODULES.glob("*.py"):
        shutil.copy(module, folder)
    block = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    (folder / "requests.json").write_text(json.dumps(plan(Deployment.parse(block)).request_settings))
    (folder / "model").mkdir()
    model_files.write(folder / "model")

    def go(*flags: str, name: str = MODEL, token_ms: float = 2, middleware: bool = True) -> Engine:
        port = free_port()
        loaded = ("--middleware", host_paths.MIDDLEWARE) if middleware else ()
        names = (name, HUB) if name == MODEL else (name,)
        command = [
            "setpriv", "--pdeathsig", "KILL",  # it ends with this test, also when that is killed
            sys.executable, "-S", "-W", "error", "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(folder / "model"), "--host", "127.0.0.1", "--port", str(port),
            "--served-model-name", *names, "--max-model-len", "2048", *loaded, *flags,
        ]  # fmt: skip
        environment = {
            "PULUMI_VLLM_REQUESTS": str(folder / "requests.json"),
            "PYTHONPATH": str(folder), "PATH": os.environ["PATH"], "VLLM_API_KEY": KEY,
            "VLLM_FAKE_START_S": "0", "VLLM_FAKE_TOKEN_MS": str(token_ms),
        }  # fmt: skip
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        answers(f"http://127.0.0.1:{port}/health")
        return Engine(port, process)

    yield go
    for process in running:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def key(monkeypatch) -> str:
    """The key of the engine and the gateways, in the variable that the commands read."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    return KEY


@pytest.fixture(scope="session")
def engine(start) -> Engine:
    return start(*PARSERS)


def answers(url: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.02)


@pytest.fixture
def gateway(tmp_path):
    """Start gateways in front of an engine; limits are keys of server.gateway."""
    # The gateway removes the key. This engine needs it, because tests without a gateway use it too.
    own = f'    http-request set-header Authorization "Bearer {KEY}"\n'
    keep = {"    http-request del-header Authorization\n": own}
    with contextlib.ExitStack() as running:
        numbers = itertools.count()

        def go(
            engine: Engine, keys: dict[str, str] | None = None, more: Any = None, **limits: int
        ) -> Gateway:
            folder = tmp_path / f"gateway{next(numbers)}"
            known = {"team-a": KEY} | (keys or {})
            return running.enter_context(Gateway(folder, engine.port, known, keep, more, **limits))

        yield go
