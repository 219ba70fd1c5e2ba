"""Where a subcommand's offers come from: a file, the cloud, or none, which means the dated table."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import say

if TYPE_CHECKING:
    from pulumi_vllm.plan import Offer


class OffersError(Exception):
    """A sentence about a file that holds no offers."""


def find(file: Path | None, *, offline: bool) -> "tuple[Offer, ...] | None":
    """Today's offers; None where there is no key or no cloud, which is said on stderr."""
    if file is not None:
        return _read(file)
    key = os.environ.get("SPHERON_API_KEY")
    if offline:
        return None
    if not key:
        say("SPHERON_API_KEY is not set: prices are from the dated list")
        return None
    from pulumi_vllm.spheron.client import Spheron
    from pulumi_vllm.spheron.errors import CloudError

    try:
        return Spheron(key, url=os.environ.get("SPHERON_URL")).offers.list()
    except CloudError as error:
        say(f"{error}: prices are from the dated list")
        return None


def _read(file: Path) -> "tuple[Offer, ...]":
    """An answer of the API's /api/gpu-offers, kept as a file: `{"data": [groups]}`, or the groups."""
    from pulumi_vllm.spheron.offer_listing import parse_groups

    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise OffersError(f"{file}: {error.strerror}; name an answer of /api/gpu-offers") from None
    except ValueError as error:
        raise OffersError(f"{file}: is not JSON ({error}); name an answer of /api/gpu-offers") from None
    groups = document.get("data", document.get("groups")) if isinstance(document, dict) else document
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise OffersError(f'{file}: holds no groups of offers; it should be {{"data": [group, ...]}}')
    return parse_groups(groups)
