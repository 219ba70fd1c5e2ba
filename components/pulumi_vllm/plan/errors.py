"""The refusals of the plan room: each carries every mistake found, as sentences for a person."""

from __future__ import annotations


class PlanError(ValueError):
    """A stack that cannot be served as written; `mistakes` holds one "path: what; remedy" per finding."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ConfigError(PlanError):
    """The stack file has keys or values that mean nothing."""


class DoesNotFit(PlanError):  # noqa: N818 - the name is the sentence
    """The model, context or concurrency needs more memory or disk than the machine has."""


class LintError(PlanError):
    """The vLLM arguments hold a combination known to fail."""
