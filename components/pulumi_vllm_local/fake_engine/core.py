"""The core process of the fake engine. Each token takes one answer of it, so that a core may die or hang."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading

_PR_SET_NAME = 15
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

    def step(self) -> None:
        """Wait for the core. A stopped core never answers."""
        with self._turn:
            try:
                self._socket.sendall(b".")
                answer = self._socket.recv(1)
            except OSError:
                answer = b""
        if not answer:
            raise CoreDead

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
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    with contextlib.suppress(OSError):
        while connection.recv(1):
            connection.sendall(b".")
    os._exit(0)
