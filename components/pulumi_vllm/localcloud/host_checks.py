"""What the local cloud needs of the computer it runs on.

API: `preflight() -> tuple[str, ...]`: sentences, each with its remedy; empty when all is there.
"""

from __future__ import annotations


def preflight() -> tuple[str, ...]:
    """Return what is missing, one sentence each."""
    raise NotImplementedError
