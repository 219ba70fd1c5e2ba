"""What can go wrong with a machine, each as one sentence that ends with the machine's own last words."""

from __future__ import annotations

from pulumi_vllm.host.mask import mask

_LAST_LINES = 5


class HostError(Exception):
    """The machine, or a program on it, did not do what was asked."""

    def __init__(self, sentence: str, stderr: str = "", code: int | None = None) -> None:
        words = " | ".join(line.strip() for line in stderr.splitlines() if line.strip()[:1])
        last = " | ".join(words.split(" | ")[-_LAST_LINES:])
        super().__init__(mask(f"{sentence}: {last}" if last else sentence))
        self.code = code


class Unreachable(HostError):  # noqa: N818 - the name is the sentence
    """Nothing answers, or the connection was lost; the machine may be up again in a moment."""


class AuthRefused(HostError):  # noqa: N818 - the name is the sentence
    """The machine answers and does not take our key; young machines take it some minutes later."""


class HostKeyChanged(HostError):  # noqa: N818 - the name is the sentence
    """The machine shows another host key than the pinned one: another machine, or somebody in between."""


class WaitCancelled(HostError):  # noqa: N818 - the name is the sentence
    """The person gave up waiting."""
