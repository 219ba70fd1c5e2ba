"""One update of a stack by the Pulumi CLI: its phases as they happen, a limit, and the lock that it holds."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

_PHASE_OF_TYPE: Final = {
    "vllm:spheron:Instance": "booted",
    "vllm:host:Weights": "weights",
    "vllm:host:Service": "ready",
}
_IGNORED: Final = {
    "refresh",
    "read",
    "delete",
    "delete-replaced",
    "discard-replaced",
    "remove-pending-replace",
}
_LOCK: Final = re.compile(r"created by \S+@(\S+) \(pid (\d+)\)")
_LOCKED: Final = re.compile(r"currently locked by|Another update is currently in progress", re.IGNORECASE)
_CHECK_EVERY_S = 15.0
_POLL_S, _PAUSE_S = 0.5, 0.1


@dataclass(slots=True)
class Update:
    """What became of an update."""

    code: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds since the update began, by phase."""
    errors: list[str] = field(default_factory=list)
    stopped: bool = False
    """Whether it was interrupted because of `must_stop`."""
    locked: bool = False
    locks: tuple[tuple[str, int], ...] = ()
    """Computer and process of each lock that kept the update from starting, where the backend says so."""


class RunningFile:
    """Which process of this computer holds, or has left, a lock of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._earlier = path.read_text()
        except OSError:
            self._earlier = ""

    @contextlib.contextmanager
    def of(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Hold the file while the process runs. It stays if this program is killed."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"computer": socket.gethostname(), "pid": process.pid}))
        yield
        self._path.unlink()

    def keep_earlier(self) -> None:
        """Write what the file held at first, because the lock is still there."""
        if self._earlier:
            self._path.write_text(self._earlier)

    def left_behind(self, locks: Sequence[tuple[str, int]]) -> bool:
        """Whether all locks are of one update that an earlier run of ours started here and that runs no more."""
        try:
            known = json.loads(self._earlier)
            ours = (str(known["computer"]), int(known["pid"]))
        except (ValueError, KeyError, TypeError):
            return False
        return bool(locks) and set(locks) == {ours} and ours[0] == socket.gethostname() and not _runs(ours[1])


def run_update(
    words: Sequence[str],
    running: RunningFile,
    *,
    environment: Mapping[str, str],
    on_phase: Callable[[str, float], None],
    must_stop: Callable[[], bool],
) -> Update:
    """Run `pulumi` with these words. Ctrl-C and SIGTERM are passed on, so that the engine gives its lock back.

    Args:
        words: verb and options.
        running: remembers the process that holds the lock.
        environment: variables beside those of this process.
        on_phase: gets each phase with its seconds since the begin.
        must_stop: asked every 15 s; the update is interrupted when it is true.

    Raises:
        KeyboardInterrupt: a signal ended the update.
    """
    update = Update()
    with tempfile.TemporaryDirectory(prefix="pulumi-vllm-") as folder, tempfile.TemporaryFile() as output:
        # A pipe, because the engine's events hold debug messages, which belong into no file.
        pipe = Path(folder, "events")
        os.mkfifo(pipe, 0o600)
        events = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with _signals_kept() as signals:
                process = subprocess.Popen(
                    ["pulumi", "--non-interactive", "--color", "never", *words, "--event-log", str(pipe)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PULUMI_DEBUG_COMMANDS": "true", **environment},
                    start_new_session=True,
                )
                with running.of(process):
                    limit = _every(_CHECK_EVERY_S, must_stop)
                    _follow(process, events, update, on_phase, lambda: bool(signals) or limit())
        finally:
            os.close(events)
        _read_output(update, output)
    if update.locked:
        running.keep_earlier()
    if signals:
        raise KeyboardInterrupt
    return update


def _follow(
    process: "subprocess.Popen[bytes]",
    events: int,
    update: Update,
    on_phase: Callable[[str, float], None],
    must_stop: Callable[[], bool],
) -> None:
    began = time.monotonic()
    rest, ended, piece = b"", False, b""
    while not ended or piece:
        ended = process.poll() is not None
        select.select([] if ended else [events], [], [], _POLL_S)
        piece = _piece(events)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            _note(line, update, time.monotonic() - began, on_phase)
        if not piece and not ended:
            time.sleep(_PAUSE_S)  # there is no writer yet, or no longer
        if not update.stopped and must_stop():
            update.stopped = True
            process.send_signal(signal.SIGINT)
    update.code = process.returncode


def _every(seconds: float, ask: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that asks at most once in this time, and is false in between."""
    asked = time.monotonic()

    def ask_sometimes() -> bool:
        nonlocal asked
        if time.monotonic() - asked < seconds:
            return False
        asked = time.monotonic()
        return ask()

    return ask_sometimes


def _piece(events: int) -> bytes:
    try:
        return os.read(events, 1 << 20)
    except BlockingIOError:
        return b""


def _note(line: bytes, update: Update, seconds: float, on_phase: Callable[[str, float], None]) -> None:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return
    metadata = (event.get("resOutputsEvent") or {}).get("metadata") or {}
    message = event.get("diagnosticEvent") or {}
    phase = None if metadata.get("op") in _IGNORED else _PHASE_OF_TYPE.get(str(metadata.get("type")))
    if message.get("severity") == "info" and str(message.get("message")).startswith("rented "):
        phase = "rented"
    if message.get("severity") == "error":
        update.errors += [text for part in str(message.get("message")).splitlines() if (text := part.strip())]
    if phase is not None and phase not in update.phases:
        update.phases[phase] = round(seconds, 1)
        on_phase(phase, seconds)


def _read_output(update: Update, output: IO[bytes]) -> None:
    output.seek(0)
    text = output.read().decode(errors="replace")
    if update.code == 0:
        return
    update.locked = _LOCKED.search(text) is not None
    update.locks = tuple((host, int(pid)) for host, pid in _LOCK.findall(text)) if update.locked else ()
    if not update.errors:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        update.errors = [line for line in lines if line.startswith("error:")] or lines[-1:]


@contextlib.contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list in place of their usual effect."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _runs(pid: int) -> bool:
    """Whether the process is still an engine: its number may have gone to another program."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return b"pulumi" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
