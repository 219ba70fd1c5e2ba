"""The files that the local cloud's process and its commands share, and who holds the folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pulumi_vllm_local import json_files

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ("real", "fake", "none")


class LocalCloudError(Exception):
    """A sentence: where, what, what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What stays the same over restarts."""

    engine: str
    factor: float
    port: int
    hub_port: int
    api_key: str
    engine_locks: str = ""

    @classmethod
    def read(cls, state_dir: Path) -> Settings | None:
        """Of a folder; None where no cloud has been."""
        data = read_json(Files(state_dir).settings)
        return cls(**data) if data else None

    @classmethod
    def fresh(cls, engine: str, factor: float, port: int) -> Settings:
        """For a new cloud; port 0 is filled in when the process listens."""
        return cls(engine, factor, port, 0, f"sai_pk_local_{secrets.token_hex(16)}")

    def write(self, state_dir: Path) -> None:
        """Keep them; the file holds the key."""
        json_files.write(Files(state_dir).settings, asdict(self))


@dataclass(frozen=True, slots=True)
class Files:
    """Where things are in a state folder."""

    state_dir: Path

    @property
    def settings(self) -> Path:
        """The settings."""
        return self.state_dir / "cloud.json"

    @property
    def records(self) -> Path:
        """The simulator's records."""
        return self.state_dir / "state.json"

    @property
    def process(self) -> Path:
        """What the running process says of itself."""
        return self.state_dir / "daemon.json"

    @property
    def lock(self) -> Path:
        """Held by the running process."""
        return self.state_dir / "daemon.lock"

    @property
    def log(self) -> Path:
        """What the process logs."""
        return self.state_dir / "daemon.log"

    @property
    def hub(self) -> Path:
        """The hub's content, shared by all clouds of this user."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "pulumi-vllm" / "hub"


def default_state_dir() -> Path:
    """$PULUMI_VLLM_LOCAL_DIR, else .pulumi-vllm/local in the working folder."""
    named = os.environ.get("PULUMI_VLLM_LOCAL_DIR")
    return Path(named) if named else Path.cwd() / ".pulumi-vllm" / "local"


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of a file, or None without the file."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalCloudError(f"{path}: not JSON ({error}); remove it and try again") from error
    return data


def take(path: Path) -> IO[str] | None:
    """Hold a lock file until the handle is closed or the process ends; None if another process holds it.

    A record lock, because children that a process leaves behind do not inherit it.
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
    """Whether another process holds the lock."""
    handle = take(path)
    if handle is None:
        return True
    handle.close()
    return False


@contextlib.contextmanager
def alone(state_dir: Path, wait_s: float = 600.0) -> Iterator[None]:
    """One command at a time changes whether the cloud runs."""
    until = time.monotonic() + wait_s
    while (handle := take(state_dir / "command.lock")) is None:
        if time.monotonic() > until:
            raise LocalCloudError(f"{state_dir}: another `local` command is at work; wait for it or end it")
        time.sleep(0.2)
    with handle:
        yield
