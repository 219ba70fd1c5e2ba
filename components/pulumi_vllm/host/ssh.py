"""One host over SSH: a pinned host key, root through sudo, and a time limit for every call."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable
from pulumi_vllm.host.probe_request import probe_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulumi_vllm.host.probe_request import ProbeRequest

_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
_KEEPALIVE_S = 5
_KEEPALIVES = 3
_NOT_FOUND = 127  # the exit code of a shell that finds no such program
_PUT_FILES = Path(__file__).parent / "put_files_program.py"


@dataclass(frozen=True, slots=True)
class Address:
    """Host name, SSH port and login user."""

    host: str
    port: int = 22
    user: str = "root"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f" port {self.port}" if self.port != 22 else "")  # noqa: PLR2004 - SSH


@dataclass(frozen=True, slots=True)
class Result:
    """Output and exit code of a command."""

    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    code: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """A random line that a script prints first on stdout and stderr. What comes before it is not the script's."""

    marker: str

    @classmethod
    def new(cls) -> _Frame:
        return cls(f"pulumi-vllm-{secrets.token_hex(8)}")

    @property
    def begin(self) -> str:
        """The start of the script. It holds the marker in two parts, so that a traced command is not taken for it."""
        head, tail = self.marker[:-4], self.marker[-4:]
        return f"printf '%s%s\\n' {head} {tail}; printf '%s%s\\n' {head} {tail} >&2; "

    def began_in(self, stdout: str) -> bool:
        """Whether the script began."""
        return f"{self.marker}\n" in stdout

    def content(self, output: str) -> str:
        """Return what follows the marker, or all of the output where there is no marker."""
        return output.split(f"{self.marker}\n", 1)[-1]


@dataclass(frozen=True, slots=True)
class PutFile:
    """A file to write to the host. Its content never appears in a repr."""

    path: str
    data: bytes = field(repr=False)
    mode: str = "0644"
    owner: str = "root:root"


async def connect(
    address: Address, private_key_pem: str, host_key: str | None, timeout_s: float = 15.0
) -> Host:
    """Log in. Without `host_key`, trust the key that the host shows; read it from the result and pin it.

    Raises:
        Unreachable: nothing answers in time.
        AuthRefused: the host does not accept our key.
        HostKeyChanged: the host key is not the pinned one.
    """
    host = Host(address, private_key_pem, host_key)
    await host.open(timeout_s)
    return host


class Host:
    """A host that we are logged in to. After a lost connection, the next call connects again with the pinned key."""

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
        """The host key, pinned or trusted on first use: "ssh-ed25519 AAAA…"."""
        return self._pinned

    @property
    def closed(self) -> bool:
        """Whether there is no connection now."""
        return self._connection is None or self._connection.is_closed()

    async def open(self, timeout_s: float = 15.0) -> None:
        """Connect, unless connected."""
        async with self._opening:
            if self.closed:
                self._connection = await self._connect(timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2.0):
                    await connection.wait_closed()

    async def run(
        self,
        script: str,
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        check: bool = True,
        as_root: bool = True,
    ) -> Result:
        """Run a bash script, as root or as the user of the login. It stops at the first line that fails.

        Pass secrets in `stdin`, never in `script`, which other users of the host can read. The result holds only what
        the script printed, and nothing that a start file of the login shell printed before it.

        Raises:
            HostError: the exit code is not 0 (with `check`), the time limit passed, or the script did not begin.
            Unreachable: the connection was lost. The script may have run in part or completely.
        """
        await self.open()
        frame = _Frame.new()
        # Without --norc, bash reads ~/.bashrc for a command over SSH, and would do so with -e and -u.
        command = ["bash", "--norc", "-euc", frame.begin + script]
        if as_root and self.address.user != "root":
            command = ["sudo", "-n", "--", *command]
        name = _first_line(script)
        try:
            async with asyncio.timeout(timeout_s):
                done = await self._run(shlex.join(command), stdin)
        except TimeoutError:
            raise HostError(f"{self.address}: `{name}` took longer than {timeout_s:.0f} s") from None
        except (OSError, asyncssh.Error) as error:
            await self.close()
            raise Unreachable(
                f"{self.address}: the connection was lost during `{name}`", str(error)
            ) from None
        stdout, stderr = _text(done.stdout), _text(done.stderr)
        code = -1 if done.exit_status is None else done.exit_status
        result = Result(frame.content(stdout), frame.content(stderr), code)
        if done.exit_status is None and not done.exit_signal:
            await self.close()
            raise Unreachable(f"{self.address}: the connection was lost during `{name}`", result.stderr)
        if not frame.began_in(stdout):
            self._check_began(name, result)
        if check and result.code:
            raise HostError(
                f"{self.address}: `{name}` failed with code {result.code}", result.stderr, result.code
            )
        return result

    async def put(self, files: Iterable[PutFile], *, timeout_s: float = 120.0) -> tuple[str, ...]:
        """Write the files that differ in one round trip, each atomically. Returns the changed paths.

        Raises:
            HostError: a file could not be written. No file was changed.
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
        script = "# write files\nexec python3 -I -c " + shlex.quote(_PUT_FILES.read_text())
        done = await self.run(script, stdin=json.dumps(items).encode(), timeout_s=timeout_s)
        return tuple(json.loads(done.stdout))

    async def client_address(self) -> str:
        """Return the address from which the host sees this connection. Empty where its SSH server does not say."""
        # sudo would remove the variable.
        done = await self.run('echo "${SSH_CONNECTION:-}"', timeout_s=30, as_root=False)
        return done.stdout.partition(" ")[0].strip()

    async def probe(self, request: ProbeRequest, *, timeout_s: float = 30.0) -> dict[str, Any]:
        """Run the probe program on the host. `Facts.parse` reads what it returns.

        Raises:
            HostError: the probe failed, or the host has no python3.
        """
        script = f"# probe\nexec python3 -I - {shlex.quote(request.to_json(self.address.user))}"
        before = time.time()
        done = await self.run(script, stdin=probe_source().encode(), timeout_s=timeout_s)
        after = time.time()
        try:
            facts = json.loads(done.stdout)
        except ValueError:
            raise HostError(f"{self.address}: the probe printed no JSON", done.stdout[-200:]) from None
        if not isinstance(facts, dict):
            raise HostError(f"{self.address}: the probe printed no JSON object")
        return {**facts, "skew_s": _skew_s(facts.get("time"), before, after)}

    def _check_began(self, name: str, result: Result) -> None:
        """Explain a script that did not begin. With a failure of another kind, the caller reads its exit code."""
        if result.code == _NOT_FOUND or "sudo: bash: command not found" in result.stderr:
            program = (
                "bash" if self.address.user == "root" or "bash: command" in result.stderr else "sudo or bash"
            )
            raise HostError(
                f"{self.address}: the host has no {program}; install it, or use Debian or Ubuntu",
                result.stderr,
                result.code,
            )
        refused = [line for line in result.stderr.splitlines() if line.startswith("sudo: ")]
        if result.code and refused:
            raise HostError(
                f"{self.address}: the user can't become root with `sudo -n`", "\n".join(refused), result.code
            )
        if not result.code:
            raise HostError(
                f"{self.address}: the login shell ended before `{name}` began; look for `exit` in the shell's start "
                f"files of {self.address.user}, such as ~/.bashrc",
                f"{result.stdout}\n{result.stderr}",
            )

    # -- asyncssh ----------------------------------------------------------------------------------------
    async def _run(self, command: str, stdin: bytes) -> asyncssh.SSHCompletedProcess:
        if self._connection is None:
            raise asyncssh.ConnectionLost("closed")
        process = await self._connection.create_process(command, encoding=None)
        try:
            # A program may end before it has read all of its input. Its exit code shows whether it failed.
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
            raise self._host_key_changed() from None
        except asyncssh.KeyExchangeFailed as error:
            if self._pinned and "host key" in str(error).lower():
                raise self._host_key_changed() from None
            raise Unreachable(f"{self.address}: there is no common SSH algorithm", str(error)) from None
        except asyncssh.PermissionDenied:
            raise AuthRefused(f"{self.address}: does not accept our key") from None
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
                f"{self.address}: the pinned host key can't be read; write it as `ssh-ed25519 AAAA…`"
            ) from None

    def _host_key_changed(self) -> HostKeyChanged:
        return HostKeyChanged(
            f"{self.address}: shows another host key than the pinned one, so nothing was sent to it; "
            "if the host was reinstalled on purpose, replace it in the stack"
        )


def _skew_s(shown: object, before: float, after: float) -> float:
    """Return by how much a clock is ahead, of which the host printed the time between `before` and `after`."""
    if not isinstance(shown, float):
        return 0.0
    return min(shown - before, 0.0) + max(shown - after, 0.0)


def _client_key(address: Address, pem: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(pem)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        raise HostError(
            f"{address}: the private key can't be read; use an OpenSSH key without a passphrase"
        ) from None


def _first_line(script: str) -> str:
    line = next((line.strip("# ").strip() for line in script.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else f"{line[:60]} …"  # noqa: PLR2004 (enough to recognize the script)


def _text(data: bytes | str | None) -> str:
    return data if isinstance(data, str) else (data or b"").decode(errors="replace")


def _cause(error: Exception) -> str:
    """Return the system's message ("No route to host"), which asyncio replaces with its own."""
    number = error.errno if isinstance(error, OSError) else None
    # A failed name look-up has an error number below 0, which strerror does not know.
    return os.strerror(number) if number and number > 0 else str(error)


__all__ = [
    "Address",
    "AuthRefused",
    "Host",
    "HostError",
    "HostKeyChanged",
    "PutFile",
    "Result",
    "Unreachable",
    "connect",
]
