"""The core process of the fake engine. Each token takes one answer of it, so that a core may die, hang or be broken.

SIGKILL and SIGSTOP do as they do to vLLM. After SIGUSR1 every token is token 0. After SIGUSR2 each takes more memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading

_PR_SET_NAME = 15
_GOOD, _BROKEN = b".", b"0"
_LEAK_BYTES = 16 * 2**20
NAME = "VLLM::EngineCore"
"""The title of vLLM's process. The kernel keeps 15 characters of it."""


class CoreDead(Exception):  # noqa: N818 (like EngineDeadError in vLLM)
    """The core process has ended."""


class Core:
    """A child process that answers one byte for each byte, and ends with its parent."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _run(theirs)
        theirs.close()
        self._socket, self._turn = ours, threading.Lock()

    def step(self) -> bool:
        """Wait for the core, and return whether its token is good. A stopped core never answers."""
        with self._turn:
            try:
                self._socket.sendall(b".")
                answer = self._socket.recv(1)
            except OSError:
                answer = b""
        if not answer:
            raise CoreDead
        return answer == _GOOD

    def dead(self) -> bool:
        """Whether the process has ended."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def end(self) -> None:
        """End the process, also a stopped one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _run(connection: socket.socket) -> None:
    """Answer until the parent is gone. vLLM's core ignores SIGINT and leaves the end to its parent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    answer, leaks, taken = [_GOOD], [0], []
    signal.signal(signal.SIGUSR1, lambda *_: answer.__setitem__(0, _BROKEN))
    signal.signal(signal.SIGUSR2, lambda *_: leaks.__setitem__(0, _LEAK_BYTES))
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    with contextlib.suppress(OSError):
        while connection.recv(1):
            taken.append(b"\1" * leaks[0])
            connection.sendall(answer[0])
    os._exit(0)
