"""Errors of the plan. Each one carries every problem that was found, as messages for a person."""

from __future__ import annotations


class PlanError(ValueError):
    """A stack that cannot be served as written. Each of its `errors` reads "path: problem; remedy"."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class ConfigError(PlanError):
    """The stack file has unknown keys, or values that are not allowed."""


class DoesNotFit(PlanError):  # noqa: N818 - the name reads as a sentence
    """The model, context or concurrency needs more memory or storage than the machine has."""


class LintError(PlanError):
    """The vLLM arguments contain a combination that is known to fail."""
