"""Settings, files and locks that the process of the local cloud and its commands share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pulumi_vllm_local import json_files

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ("real", "fake", "none")


class LocalCloudError(Exception):
    """The local cloud failed; the message says where, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What stays the same over restarts."""

    engine: str
    factor: float
    port: int
    hub_port: int
    api_key: str
    engine_locks: str = ""
    release: str = ""

    @classmethod
    def read(cls, state_dir: Path) -> Settings | None:
        """Read the settings of a folder; None if it never had a cloud."""
        data = read_json(Files(state_dir).settings)
        return cls(**data) if data else None

    @classmethod
    def fresh(cls, engine: str, factor: float, port: int) -> Settings:
        """Return settings for a new cloud; port 0 is replaced when the process listens."""
        return cls(engine, factor, port, 0, f"sai_pk_local_{secrets.token_hex(16)}")

    def write(self, state_dir: Path) -> None:
        """Write the settings; the file contains the API key."""
        json_files.write(Files(state_dir).settings, asdict(self))


@dataclass(frozen=True, slots=True)
class Files:
    """The paths in a state folder."""

    state_dir: Path

    @property
    def settings(self) -> Path:
        """The settings."""
        return self.state_dir / "cloud.json"

    @property
    def records(self) -> Path:
        """The records of the simulator."""
        return self.state_dir / "state.json"

    @property
    def process(self) -> Path:
        """The id and the URLs of the running process."""
        return self.state_dir / "daemon.json"

    @property
    def lock(self) -> Path:
        """The lock that the running process holds."""
        return self.state_dir / "daemon.lock"

    @property
    def log(self) -> Path:
        """The log of the process."""
        return self.state_dir / "daemon.log"

    @property
    def hub(self) -> Path:
        """The content of the hub, shared by all local clouds of this user."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "pulumi-vllm" / "hub"


def default_state_dir() -> Path:
    """Return $PULUMI_VLLM_LOCAL_DIR, by default .pulumi-vllm/local in the working folder."""
    named = os.environ.get("PULUMI_VLLM_LOCAL_DIR")
    return Path(named) if named else Path.cwd() / ".pulumi-vllm" / "local"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if it does not exist."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalCloudError(f"{path}: this is not JSON ({error}); remove the file and try again") from error
    return data


def lock_file(path: Path) -> IO[str] | None:
    """Lock a file until the handle is closed or the process ends; None if another process holds the lock.

    It is a record lock, because child processes do not inherit those.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("a", encoding="utf-8")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def is_held(path: Path) -> bool:
    """Return whether another process holds the lock.

    It only asks. To take the lock for a moment would refuse it to a process that starts just then.
    """
    layout = "hhqqi4x"  # struct flock of Linux on 64 bits: kind, whence, start, length, process
    try:
        with path.open("rb") as file:
            wanted = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_GETLK, wanted)
    except FileNotFoundError:
        return False
    return bool(struct.unpack(layout, found)[0] != fcntl.F_UNLCK)


@contextlib.contextmanager
def exclusive_command(state_dir: Path, wait_s: float = 600.0) -> Iterator[None]:
    """Allow one command at a time to start or stop the cloud."""
    until = time.monotonic() + wait_s
    while (handle := lock_file(state_dir / "command.lock")) is None:
        if time.monotonic() > until:
            raise LocalCloudError(
                f"{state_dir}: another `pulumi-vllm local` command is running; wait for it or stop it"
            )
        time.sleep(0.2)
    with handle:
        yield
