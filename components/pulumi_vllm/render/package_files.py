"""Files of this package that go to a host as they are: host programs, and the engines' locks.

The resource `Files` declares each by its digest, `@@package:SHA256@@`. Their texts are nine tenths of what a host gets,
and a state, a preview and the engine's log would hold every one of them several times.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import pathlib
import re
from typing import TYPE_CHECKING

from pulumi_vllm.plan import PlanError, engine_locks
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Callable

_REFERENCE = re.compile(r"@@package:([0-9a-f]{64})@@")
# A preview shows so many lines of a changed program. The rest can be read on the host.
_MOST_LINES = 40


@functools.cache
def templates() -> pathlib.Path:
    """The templates directory: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for candidate in (package / "templates", package.parents[1] / "templates"):
        if candidate.is_dir():
            return candidate
    raise PlanError((f"{package}: the templates directory is missing; install pulumi-vllm again",))


def conversation() -> str:
    """The gateway's program for hosts with several engines."""
    return (templates() / layout.CONVERSATION.lstrip("/")).read_text()


def programs() -> dict[str, str]:
    """The host programs and their modules, by path on the host."""
    folder = templates() / layout.PROGRAMS.lstrip("/")
    return {
        f"{layout.PROGRAMS}/{file.relative_to(folder)}": file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in ("", ".py")
    }


def reference(sha256: str) -> str:
    """What stands in place of the text of a file of this package."""
    return f"@@package:{sha256}@@"


def digest(declared: str) -> str | None:
    """The sha256 of the file that is declared by reference; None for a text."""
    match = _REFERENCE.fullmatch(declared)
    return match[1] if match else None


def digests() -> frozenset[str]:
    """The sha256 of every file of this package."""
    return frozenset(_texts())


def text(sha256: str) -> str | None:
    """The text of a file of this package, or None if this version has no such file."""
    return _texts().get(sha256)


def changed(declared: str, live: str, mask: Callable[[str], str]) -> str:
    """What stands in a preview for a file on the host that differs from the `declared` one: the lines that differ.

    `live` is the file's text as the host masked it.
    """
    known = text(digest(declared) or "")
    if known is None:
        return f"{declared}, a file of another version of pulumi-vllm, changed on the host\n"
    ours = known.splitlines()
    lines = list(difflib.unified_diff([mask(line) for line in ours], live.splitlines(), n=0, lineterm=""))[2:]
    more = [f"… {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    return "\n".join((f"{declared}, changed on the host:", *lines[:_MOST_LINES], *more)) + "\n"


@functools.cache
def _texts() -> dict[str, str]:
    every = (*programs().values(), conversation(), *engine_locks.every())
    return {hashlib.sha256(one.encode()).hexdigest(): one for one in every}
