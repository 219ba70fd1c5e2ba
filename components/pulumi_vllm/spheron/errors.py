"""What can go wrong at the rental API, each as one sentence for a person; no secret ever gets in here."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class CloudError(Exception):
    """The cloud refused, failed, or said something that can't be understood."""

    def __init__(
        self,
        sentence: str,
        *,
        status: int | None = None,
        payload: Mapping[str, Any] | None = None,
        acted: bool | None = False,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.payload: Mapping[str, Any] = payload or {}
        self.acted = acted
        """Whether the request may have had its effect: False is a promise, None means nobody knows."""

    @property
    def refused(self) -> bool:
        """Whether the cloud understood the request and said no."""
        return (
            self.status is not None
            and HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR
        )


class OutOfStock(CloudError):  # noqa: N818 - the name is the sentence
    """The offer exists on paper only; another one may do."""


class TooEarly(CloudError):  # noqa: N818 - the name is the sentence
    """The machine must run for longer before it may be let go."""

    def __init__(self, sentence: str, remaining_min: int, **known: Any) -> None:
        super().__init__(sentence, **known)
        self.remaining_min = remaining_min


class Unauthorized(CloudError):  # noqa: N818 - the name is the sentence
    """The key is missing, wrong, or lacks a right."""


class RateLimited(CloudError):  # noqa: N818 - the name is the sentence
    """Too many calls; nothing was done, and the same call may be made again later."""

    def __init__(self, sentence: str, retry_after_s: float | None = None, **known: Any) -> None:
        super().__init__(sentence, **known)
        self.retry_after_s = retry_after_s


class Ambiguous(CloudError):  # noqa: N818 - the name is the sentence
    """A machine may or may not have been rented under `name`; the list of machines doesn't show it yet."""

    def __init__(self, sentence: str, name: str, **known: Any) -> None:
        super().__init__(sentence, acted=None, **known)
        self.name = name


class UnknownStatus(CloudError):  # noqa: N818 - the name is the sentence
    """The machine exists in a state this version knows nothing of: never gone, never replaced."""
