"""Errors of the rental API. Each message is for a user and never holds a secret."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class CloudError(Exception):
    """The cloud refused a request, failed, or answered something that cannot be understood."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        payload: Mapping[str, Any] | None = None,
        effect_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.payload: Mapping[str, Any] = payload or {}
        self.effect_unknown = effect_unknown
        """Whether the request may have taken effect. False guarantees that it did not."""

    @property
    def refused(self) -> bool:
        """Whether the cloud understood the request and refused it."""
        return (
            self.status is not None
            and HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR
        )


class OutOfStockError(CloudError):
    """The offer is listed but cannot be rented. Another offer may work."""


class TooEarlyError(CloudError):
    """The instance must run longer before it may be terminated."""

    def __init__(self, message: str, remaining_min: int, **details: Any) -> None:
        super().__init__(message, **details)
        self.remaining_min = remaining_min


class UnauthorizedError(CloudError):
    """The API key is missing, wrong, or lacks a right."""


class RateLimitedError(CloudError):
    """Too many calls. Nothing was done, and the same call may be repeated later."""

    def __init__(self, message: str, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class AmbiguousError(CloudError):
    """An instance may or may not have been rented; the list of instances does not show it yet."""


class UnknownStatusError(CloudError):
    """The instance has a status that this version does not know. It is neither gone nor to be replaced."""
