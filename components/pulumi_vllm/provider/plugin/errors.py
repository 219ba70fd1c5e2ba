"""Errors that the provider reports to the user."""

from typing import Any


class UserError(Exception):
    """An error message that says what is wrong, where, and what to do. It never holds a secret."""


class Partial(UserError):  # noqa: N818 (reads better without the suffix)
    """The resource exists, and may be billed, but is not ready. Its id and outputs stay in state."""

    def __init__(self, message: str, resource_id: str, outputs: dict[str, Any]) -> None:
        super().__init__(message)
        self.resource_id = resource_id
        self.outputs = outputs


class Cancelled(UserError):  # noqa: N818 (reads better without the suffix)
    """The user pressed Ctrl-C, or the engine cancelled the operation."""
