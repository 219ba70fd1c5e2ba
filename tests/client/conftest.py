"""A served model without a machine: the stand-in engine as a process, and the door's own HAProxy before it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pulumi_vllm.localcloud import fake_engine, tiny_model
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import render

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-tests"
MODEL = "mistral-small-4-tiny"
PARSERS = ("--reasoning-parser", "mistral", "--tool-call-parser", "mistral", "--enable-auto-tool-choice")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Engine:
    """The stand-in, as a guest has it: the package under its other name, no site-packages."""

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
    (folder / "model").mkdir()
    tiny_model.write(folder / "model")

    def go(*flags: str, name: str = MODEL, token_ms: float = 2) -> Engine:
        port = free_port()
        command = [
            sys.executable, "-S", "-W", "error", "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(folder / "model"), "--host", "127.0.0.1", "--port", str(port),
            "--served-model-name", name, "--max-model-len", "2048", *flags,
        ]  # fmt: skip
        environment = {
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
    """The key of the engine and the doors, where the commands look for it."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    return KEY


@pytest.fixture(scope="session")
def engine(start) -> Engine:
    return start(*PARSERS)


def answers(url: str, **more) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, **more):
                return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.02)


@dataclass
class Door:
    """HAProxy with our configuration on a free port, and the certificate that it shows."""

    url: str
    ca: Path
    leaf: Path


@pytest.fixture
def door(tmp_path, start):
    """Start doors before an engine; limits are keys of server.door. The engine behind has no key of its own."""
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    assert haproxy, "haproxy is not installed; run ./dev test ci once, it installs what the tests need"
    running = []

    def go(engine: Engine, **limits: int) -> Door:
        folder = tmp_path / f"door{len(running)}"
        folder.mkdir()
        certificate(folder)
        block = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"][
            "pulumi-vllm:server"
        ]
        files = {file.path: file.text for file in render(plan(Deployment.parse(block | {"door": limits})))}
        port = free_port()
        text = files["/etc/pulumi-vllm/door/haproxy.cfg"]
        for before, after in {
            "/etc/pulumi-vllm/door": str(folder),
            "/run/pulumi-vllm-door": str(folder),
            "0.0.0.0:443": f"127.0.0.1:{port}",
            "127.0.0.1:8000": f"127.0.0.1:{engine.port}",
            "127.0.0.1:8405": f"127.0.0.1:{free_port()}",
            # The door takes the key away; this engine is shared with tests that have no door, and wants it.
            "    http-request del-header Authorization\n": "",
        }.items():
            assert before in text
            text = text.replace(before, after)
        (folder / "haproxy.cfg").write_text(re.sub(r"    (user|group) haproxy\n", "", text))
        (folder / "keys.map").write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} default\n")
        (folder / "limits.map").write_text(files["/etc/pulumi-vllm/door/limits.map"])
        log = (folder / "log").open("w")
        running.append(
            (subprocess.Popen([haproxy, "-db", "-f", folder / "haproxy.cfg"], stdout=log, stderr=log), log)
        )
        import ssl

        answers(
            f"https://127.0.0.1:{port}/healthz", context=ssl.create_default_context(cafile=folder / "c.pem")
        )
        return Door(f"https://127.0.0.1:{port}/v1", folder / "c.pem", folder / "leaf.pem")

    yield go
    for process, log in running:
        process.terminate()
        process.wait(timeout=10)
        log.close()


def certificate(folder: Path) -> None:
    """A CA (c.pem), and the door's own certificate that it signs (leaf.pem; with its key tls.pem)."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for words in (
        ["req", "-x509", *key, "-days", "1", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "c.pem"],
        ["req", "-new", *key, "-subj", "/CN=door", "-keyout", "leaf.key", "-out", "leaf.csr"],
        ["x509", "-req", "-in", "leaf.csr", "-CA", "c.pem", "-CAkey", "ca.key", "-days", "1", "-set_serial", "2",
         "-extfile", "names", "-out", "leaf.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    (folder / "tls.pem").write_text((folder / "leaf.pem").read_text() + (folder / "leaf.key").read_text())
