"""One machine over SSH: pinned host key, root by sudo, timeouts everywhere, and sentences when it fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable, WaitCancelled
from pulumi_vllm.host.probe import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
_KEEPALIVE_S = 5
_KEEPALIVES = 3
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Address:
    """Where a machine's sshd answers, and as whom we log in."""

    host: str
    port: int = 22
    user: str = "root"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f" port {self.port}" if self.port != 22 else "")  # noqa: PLR2004 - SSH


@dataclass(frozen=True, slots=True)
class Result:
    """What a script printed, and its exit code."""

    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    code: int


@dataclass(frozen=True, slots=True)
class PutFile:
    """A file as it should be on the host; its content never appears in a repr."""

    path: str
    data: bytes = field(repr=False)
    mode: str = "0644"
    owner: str = "root:root"


async def connect(
    address: Address, private_key_pem: str, host_key: str | None, timeout_s: float = 15.0
) -> Host:
    """Log in. `host_key` None trusts the key shown first; read it from the result and pin it.

    Raises:
        Unreachable: nothing answers in time.
        AuthRefused: our key is not taken.
        HostKeyChanged: another host key than the pinned one.
    """
    host = Host(address, private_key_pem, host_key)
    await host.open(timeout_s)
    return host


class Host:
    """A logged-in machine. A lost connection is made anew by the next call, with the key that was pinned."""

    def __init__(self, address: Address, private_key_pem: str, host_key: str | None) -> None:
        self.address = address
        self._client_key = _client_key(address, private_key_pem)
        self._pinned = host_key
        self._connection: asyncssh.SSHClientConnection | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Host({self.address})"

    @property
    def host_key(self) -> str | None:
        """The host key that was pinned, or trusted at first use: "ssh-ed25519 AAAA…"."""
        return self._pinned

    @property
    def closed(self) -> bool:
        """Whether there is no connection at the moment."""
        return self._connection is None or self._connection.is_closed()

    async def open(self, timeout_s: float = 15.0) -> None:
        """Connect where there is no connection."""
        async with self._opening:
            if self.closed:
                self._connection = await self._connect(timeout_s)

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2.0):
                    await connection.wait_closed()

    async def run(
        self, script: str, *, stdin: bytes = b"", timeout_s: float = 60.0, check: bool = True
    ) -> Result:
        """Run a bash script as root; the first failing line ends it. Secrets go through `stdin`, never `script`.

        Raises:
            HostError: it ended with another code than 0 (only with `check`), or not in time.
            Unreachable: the connection was lost; nobody knows how far it came.
        """
        await self.open()
        words = ["bash", "-euc", script]
        if self.address.user != "root":
            words = ["sudo", "-n", "--", *words]
        what = _first_line(script)
        try:
            async with asyncio.timeout(timeout_s):
                done = await self._run(shlex.join(words), stdin)
        except TimeoutError:
            raise HostError(f"{self.address}: `{what}` took longer than {timeout_s:.0f} s") from None
        except (OSError, asyncssh.Error) as error:
            await self.close()
            raise Unreachable(
                f"{self.address}: the connection was lost during `{what}`", str(error)
            ) from None
        result = Result(
            _words(done.stdout), _words(done.stderr), -1 if done.exit_status is None else done.exit_status
        )
        if done.exit_status is None and not done.exit_signal:
            await self.close()
            raise Unreachable(f"{self.address}: the connection was lost during `{what}`", result.stderr)
        if result.code and result.stderr.startswith("sudo: "):
            raise HostError(f"{self.address}: may not become root with `sudo -n`", result.stderr, result.code)
        if check and result.code:
            raise HostError(
                f"{self.address}: `{what}` failed with code {result.code}", result.stderr, result.code
            )
        return result

    async def put(self, files: Iterable[PutFile], *, timeout_s: float = 120.0) -> tuple[str, ...]:
        """Write the files that differ, atomically each, in one round trip; returns the changed paths.

        Raises:
            HostError: one could not be written; then none was.
        """
        items = [
            {
                "path": file.path,
                "data": base64.b64encode(file.data).decode(),
                "mode": file.mode,
                "owner": file.owner,
            }
            for file in files
        ]
        if not items:
            return ()
        script = "# write files\nexec python3 -I -c " + shlex.quote(_source("put_script.py"))
        done = await self.run(script, stdin=json.dumps(items).encode(), timeout_s=timeout_s)
        return tuple(json.loads(done.stdout))

    async def probe(self, wanted: Wanted, *, timeout_s: float = 30.0) -> dict[str, Any]:
        """Look at everything at once; the answer is what `Facts.parse` takes.

        Raises:
            HostError: the probe failed, or there is no python3.
        """
        script = f"# probe\nexec python3 -I - {shlex.quote(wanted.to_json())}"
        done = await self.run(script, stdin=_source("probe_script.py").encode(), timeout_s=timeout_s)
        try:
            facts = json.loads(done.stdout)
        except ValueError:
            raise HostError(f"{self.address}: the probe answered with no JSON", done.stdout[-200:]) from None
        if not isinstance(facts, dict):
            raise HostError(f"{self.address}: the probe answered with no JSON object")
        return facts

    # -- below ------------------------------------------------------------------------------------------
    async def _run(self, command: str, stdin: bytes) -> asyncssh.SSHCompletedProcess:
        if self._connection is None:
            raise asyncssh.ConnectionLost("closed")
        process = await self._connection.create_process(command, encoding=None)
        try:
            # A program that ends before it has read everything is no lost connection: its code tells.
            with contextlib.suppress(OSError):
                process.stdin.write(stdin)
                process.stdin.write_eof()
            return await process.wait()
        finally:
            process.close()

    async def _connect(self, timeout_s: float) -> asyncssh.SSHClientConnection:
        try:
            async with asyncio.timeout(timeout_s):
                connection = await asyncssh.connect(
                    self.address.host,
                    self.address.port,
                    username=self.address.user,
                    client_keys=[self._client_key],
                    known_hosts=self._known_hosts(),
                    server_host_key_algs=() if self._pinned else _ALGORITHMS,
                    preferred_auth="publickey",
                    agent_path=None,
                    config=[],
                    gss_kex=False,
                    gss_auth=False,
                    keepalive_interval=_KEEPALIVE_S,
                    keepalive_count_max=_KEEPALIVES,
                    login_timeout=timeout_s,
                )
        except asyncssh.HostKeyNotVerifiable:
            raise self._other_key() from None
        except asyncssh.KeyExchangeFailed as error:
            if self._pinned and "host key" in str(error).lower():
                raise self._other_key() from None
            raise Unreachable(f"{self.address}: no common SSH algorithm", str(error)) from None
        except asyncssh.PermissionDenied:
            raise AuthRefused(
                f"{self.address}: does not take our key; a young machine may take it later"
            ) from None
        except TimeoutError:
            raise Unreachable(f"{self.address}: no answer within {timeout_s:.0f} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"{self.address}: can't be reached", _cause(error)) from None
        shown = connection.get_server_host_key()
        if self._pinned is None and shown is not None:
            self._pinned = " ".join(shown.export_public_key().decode().split()[:2])
        return connection

    def _known_hosts(self) -> Any:
        if self._pinned is None:
            return None
        try:
            return ([asyncssh.import_public_key(self._pinned)], [], [])
        except (asyncssh.KeyImportError, ValueError):
            raise HostError(
                f"{self.address}: the pinned host key can't be read; give it as `ssh-ed25519 AAAA…`"
            ) from None

    def _other_key(self) -> HostKeyChanged:
        return HostKeyChanged(
            f"{self.address}: shows another host key than the pinned one, so nothing was sent to it; "
            "if the machine was reinstalled on purpose, replace it in the stack"
        )


def _client_key(address: Address, pem: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(pem)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        raise HostError(
            f"{address}: our private key can't be read; give an OpenSSH key without passphrase"
        ) from None


def _first_line(script: str) -> str:
    line = next((line.strip("# ").strip() for line in script.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else f"{line[:60]} …"  # noqa: PLR2004 (a name, not the program)


def _words(data: bytes | str | None) -> str:
    return data if isinstance(data, str) else (data or b"").decode(errors="replace")


def _cause(error: Exception) -> str:
    """The system's own words ("No route to host"), which asyncio hides behind its own."""
    number = error.errno if isinstance(error, OSError) else None
    # A failed look-up of a name has a number of its own kind, below 0.
    return os.strerror(number) if number and number > 0 else str(error)


def _source(name: str) -> str:
    return (_HERE / name).read_text()


__all__ = [
    "Address",
    "AuthRefused",
    "Host",
    "HostError",
    "HostKeyChanged",
    "PutFile",
    "Result",
    "Unreachable",
    "WaitCancelled",
    "Wanted",
    "connect",
]
