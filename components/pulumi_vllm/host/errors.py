"""Errors of a host. Each message ends with the last lines that the host printed."""

from __future__ import annotations

from pulumi_vllm.host.mask import mask

_LAST_LINES = 5


class HostError(Exception):
    """A command, a file or a probe failed on the host."""

    def __init__(self, message: str, stderr: str = "", code: int | None = None) -> None:
        lines = " | ".join(line.strip() for line in stderr.splitlines() if line.strip()[:1])
        last = " | ".join(lines.split(" | ")[-_LAST_LINES:])
        super().__init__(mask(f"{message}: {last}" if last else message))
        self.code = code


class Unreachable(HostError):  # noqa: N818 (reads better without the suffix)
    """The host does not answer, or the connection was lost. A later attempt may succeed."""


class AuthRefused(HostError):  # noqa: N818 (reads better without the suffix)
    """The host answers but does not accept our key, or not as root. Images of a cloud may do so late."""


class HostKeyChanged(HostError):  # noqa: N818 (reads better without the suffix)
    """The host key is not the pinned one: the instance was replaced, or the connection is intercepted."""
