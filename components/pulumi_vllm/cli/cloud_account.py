"""The account at the cloud of the commands that ask it. A command that can refuse without the cloud does so before."""

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron

KEY: Final = "SPHERON_API_KEY"
NOT_SET: Final = f"{KEY} is not set"


class AccountError(Exception):
    """There is no key of the cloud's API."""


def key() -> str | None:
    """Return the key of the cloud's API, or None if it is not set."""
    return os.environ.get(KEY) or None


def connect() -> "Spheron":
    """Return a client of the cloud's API.

    Raises:
        AccountError: the key is not set.
    """
    found = key()
    if found is None:
        raise AccountError(f"{NOT_SET}; set it to a key of the Spheron API")
    from pulumi_vllm.spheron.client import Spheron  # requests takes 0.1 s to import

    return Spheron(found, url=os.environ.get("SPHERON_URL"))
