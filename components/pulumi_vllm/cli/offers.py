"""Offers for a command: from a file, from the cloud, or none, in which case the dated price list is used."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli import cloud_account
from pulumi_vllm.cli.terminal import say
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.offer_listing import parse_groups

if TYPE_CHECKING:
    from pulumi_vllm.plan import Offer


class OffersError(Exception):
    """A file of offers cannot be read."""


def find(file: Path | None, *, offline: bool) -> "tuple[Offer, ...] | None":
    """Today's offers; None, with a message on stderr, without an API key or an answer of the cloud."""
    if file is not None:
        return _read(file)
    if offline:
        return None
    if cloud_account.key() is None:
        say(f"{cloud_account.NOT_SET}: prices are from the dated price list")
        return None
    try:
        return cloud_account.connect().offers.list()
    except CloudError as error:
        say(f"{error}: prices are from the dated price list")
        return None


def _read(file: Path) -> "tuple[Offer, ...]":
    """Offers from a saved answer of the API's /api/gpu-offers: `{"data": [groups]}`, or the groups alone."""
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise OffersError(f"{file}: {error.strerror}; name a saved answer of /api/gpu-offers") from None
    except ValueError as error:
        raise OffersError(f"{file}: is not JSON ({error}); name a saved answer of /api/gpu-offers") from None
    groups = document.get("data", document.get("groups")) if isinstance(document, dict) else document
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise OffersError(f'{file}: contains no groups of offers; it must be {{"data": [group, ...]}}')
    return parse_groups(groups)
