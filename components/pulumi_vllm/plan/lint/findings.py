"""What a lint rule reports, and how the linter passes it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What one rule found: severity (error or warning), a message with a remedy, and the evidence for it."""

    severity: str
    message: str
    evidence: str


Problems = Iterator[Problem]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the id of its rule. `ignored` is the stack file's reason to ignore it."""

    rule: str
    severity: str
    message: str
    evidence: str
    ignored: str | None = None


def error(message: str, evidence: str) -> Problem:
    """A problem because of which vLLM fails, or serves wrongly."""
    return Problem("error", message, evidence)


def warning(message: str, evidence: str) -> Problem:
    """A problem that a person should know about."""
    return Problem("warning", message, evidence)
