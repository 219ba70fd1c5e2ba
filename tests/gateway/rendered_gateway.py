"""The rendered gateway as a plain process: the stack's own haproxy.cfg, with other directories and ports."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import layout, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STACKS = Path(__file__).parents[2] / "stacks"
KEYS = {"team-a": "sk-first-key-of-the-test", "team-b": "sk-second-key-of-the-test"}


def program(name: str) -> str:
    """Path of a program. Without it the test fails in CI and is skipped elsewhere."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{name} is not installed; `sudo ./dev test fast` installs it"
        )
    return found


def configuration(more: Mapping[str, Any] | None = None, **limits: Any) -> dict[str, str]:
    """The gateway's files of the stack `local`, with other limits and `more` keys of its block, by file name."""
    block = yaml.safe_load((STACKS / "Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    access = {"allow": ["0.0.0.0/0"], "keys": sorted(KEYS)}
    block |= {"gateway": limits, "access": access} | (more or {})
    files = render(plan(Deployment.parse(block)))
    directory = f"{layout.GATEWAY_CONFIG}/"
    return {file.path.removeprefix(directory): file.text for file in files if file.path.startswith(directory)}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def certificate(folder: Path) -> None:
    """Write a CA (ca.pem), a certificate that it signed (leaf.pem), and that certificate with its key (tls.pem)."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "names").write_text("subjectAltName=DNS:gateway,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for words in (
        ["req", "-x509", *key, "-days", "1", "-subj", "/CN=ca", "-addext", "keyUsage=keyCertSign",
         "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", "-new", *key, "-subj", "/CN=gateway", "-keyout", "leaf.key", "-out", "leaf.csr"],
        ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1", "-set_serial", "2",
         "-extfile", "names", "-out", "leaf.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    (folder / "tls.pem").write_text((folder / "leaf.pem").read_text() + (folder / "leaf.key").read_text())


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Gateway:
    """HAProxy with a stack's configuration in front of a port of this machine.

    `limits` are keys of server.gateway, `more` others of server. `changes` maps further texts of the configuration to
    their replacements.
    """

    def __init__(
        self,
        folder: Path,
        backend_port: int,
        keys: Mapping[str, str] = KEYS,
        changes: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.metrics_port = folder, free_port(), free_port()
        self.log, self.socket = folder / "log", folder / "admin.sock"
        self.clients: list[asyncio.StreamWriter] = []
        self.ca, self.leaf = folder / "ca.pem", folder / "leaf.pem"
        self.url = f"https://127.0.0.1:{self.port}/v1"
        certificate(folder)
        files = configuration(more, **limits)
        text = files["haproxy.cfg"]
        for old, new in {
            layout.GATEWAY_CONFIG: str(folder),
            layout.GATEWAY_RUNTIME: str(folder),
            f"0.0.0.0:{layout.GATEWAY_PORT} ": f"127.0.0.1:{self.port} ",
            f"{layout.ENGINE_ADDRESS}:{layout.ENGINE_PORT} ": f"127.0.0.1:{backend_port} ",
            f"{layout.LOOPBACK}:{layout.METRICS_PORT}\n": f"127.0.0.1:{self.metrics_port}\n",
            **(changes or {}),
        }.items():
            assert old in text, (
                f"{old!r} is no longer in haproxy.cfg; the test would attack a different gateway"
            )
            text = text.replace(old, new)
        (folder / "haproxy.cfg").write_text(re.sub(r"    (user|group) haproxy\n", "", text))
        for name in ("limits.map", "health.map"):
            (folder / name).write_text(files[name])
        self.write_keys(keys)

    def write_keys(self, keys: Mapping[str, str]) -> None:
        rows = [f"{hashlib.sha256(key.encode()).hexdigest()} {name}\n" for name, key in keys.items()]
        (self.folder / "keys.map").write_text("".join(rows))

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            command = [program("haproxy"), "-W", "-f", str(self.folder / "haproxy.cfg")]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._until(lambda: self._loads() and self.answers(self.port), "open its port")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def reload(self) -> None:
        """Reload as the unit's ExecReload does: new workers take over the listening sockets."""
        before = self._loads()
        asked = 0.0

        def loaded() -> bool:
            nonlocal asked
            if time.monotonic() - asked > 1:  # a master that has just started its workers misses the signal
                asked = time.monotonic()
                self.process.send_signal(signal.SIGUSR2)
            return self._loads() > before

        self._until(loaded, "reload")

    def _loads(self) -> int:
        """How often the master has started workers. It handles no signal before the first time."""
        return self.log.read_bytes().count(b"Loading success")

    def command(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.socket))
            link.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: link.recv(65536), b"")).decode()

    def state(self, state: str) -> None:
        assert not self.command(f"set server vllm/local state {state}").strip()

    @staticmethod
    def answers(port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def _until(self, true: Any, what: str) -> None:
        end = time.monotonic() + 30
        while not true():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"haproxy did not {what}:\n{self.log.read_text()}"
            time.sleep(0.02)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where, tls = ("127.0.0.1", self.port), self.tls()
        reader, writer = await asyncio.open_connection(
            *where, ssl=tls, server_hostname="gateway", limit=1 << 22, local_addr=(source, 0)
        )
        self.clients.append(writer)
        return reader, writer

    async def ask(self, data: bytes, silence_s: float = 30.0) -> list[Answer]:
        """Send raw bytes. Returns every response until the connection ends or stays silent."""
        return await exchange(*await self.connect(), data, silence_s)

    async def one(self, data: bytes) -> Answer:
        (answer,) = await self.ask(data)
        return answer

    async def all(self, many: Iterable[bytes], silence_s: float = 30.0) -> list[list[Answer]]:
        return await asyncio.gather(*(self.ask(data, silence_s) for data in many))


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, silence_s: float
) -> list[Answer]:
    """Send, read until the connection ends or stays silent, and close it."""
    received = b""
    try:
        with contextlib.suppress(TimeoutError, OSError):
            writer.write(data)
            while piece := await asyncio.wait_for(reader.read(1 << 16), silence_s):
                received += piece
    finally:  # also of a request that is cancelled
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answers(received)


def answers(received: bytes) -> list[Answer]:
    """Parse the bytes as responses, without a remainder."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *rows = head.decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        status = int(line.split()[1])
        length = int(headers.get("content-length", len(rest) if status != 100 else 0))
        found.append(Answer(status, headers, rest[:length]))
        received = rest[length:]
    return [one for one in found if one.status != 100]
