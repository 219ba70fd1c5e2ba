"""An SSH server in the process of the test. It runs commands in a local shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
from dataclasses import dataclass, field

import asyncssh
import pytest
from pulumi_vllm.host.ssh import Address, connect


def new_key():
    return asyncssh.generate_private_key("ssh-ed25519")


CLIENT_KEY, OTHER_KEY, HOST_KEY, OTHER_HOST_KEY = (new_key() for _ in range(4))


@dataclass
class Sshd:
    """An SSH server: what it allows, and what clients did."""

    port: int = 0
    allowed: set[str] = field(default_factory=lambda: {"root"})
    refuse: int = 0
    logins: int = 0
    commands: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answer: bytes | None = None
    """What every script prints."""
    hint: bytes | None = None
    """What is printed in place of the script, as by images that disable root. The exit code is then 142."""
    start_file: str = ":"
    """What the login shell runs before the command, as in ~/.bashrc."""
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    acceptor: asyncssh.SSHAcceptor | None = None
    key: asyncssh.SSHKey = HOST_KEY

    async def start(self) -> None:
        self.acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=lambda: _Server(self),
            server_host_keys=[self.key],
            process_factory=self.serve,
            encoding=None,
        )
        self.port = self.acceptor.get_port()

    async def stop(self) -> None:
        """Close all connections without a message, as in a power cut."""
        for connection in self.connections:
            connection.abort()
        self.connections.clear()
        if self.acceptor:
            self.acceptor.close()
            await self.acceptor.wait_closed()

    async def serve(self, process: asyncssh.SSHServerProcess) -> None:
        self.commands.append(process.command)
        self.asked.set()
        if self.hint is not None:
            process.stdout.write(self.hint)
            process.exit(142)
            return
        command = process.command
        if self.answer is not None:
            # Only the start of the script runs, which marks its output.
            head, tail = re.findall(r"pulumi-vllm-\w+ \w+", command)[0].split()
            command = shlex.join(["printf", "%s", f"{head}{tail}\n{self.answer.decode()}"])
        local = await asyncio.create_subprocess_shell(
            f"{self.start_file}\n{command}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        work = asyncio.create_task(self.feed(process, local))
        gone = asyncio.create_task(process.wait_closed())
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(local.pid, signal.SIGKILL)  # its children hold the pipes
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)

    async def feed(self, process, local) -> None:
        stdout, stderr = await local.communicate(await process.stdin.read())
        process.stdout.write(stdout)
        process.stderr.write(stderr)
        process.exit(local.returncode)

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, "root")


class _Server(asyncssh.SSHServer):
    def __init__(self, sshd: Sshd) -> None:
        self.sshd = sshd

    def connection_made(self, conn) -> None:
        self.sshd.connections.append(conn)

    def begin_auth(self, username) -> bool:
        self.user = username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username, key) -> bool:
        if self.sshd.refuse > 0:
            self.sshd.refuse -= 1
            return False
        return username in self.sshd.allowed and key == CLIENT_KEY.convert_to_public()

    def auth_completed(self) -> None:
        self.sshd.logins += 1


@pytest.fixture
async def sshd():
    server = Sshd()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def pem():
    return CLIENT_KEY.export_private_key().decode()


@pytest.fixture
def other_pem():
    return OTHER_KEY.export_private_key().decode()


def public(key) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


@pytest.fixture
def host_key():
    return public(HOST_KEY)


@pytest.fixture
def other_host_key():
    return public(OTHER_HOST_KEY)


@pytest.fixture
def reinstalled():
    """Another host key of the same kind."""
    return OTHER_HOST_KEY


@pytest.fixture
async def host(sshd, pem):
    connected = await connect(sshd.address, pem, None)
    yield connected
    await connected.close()
