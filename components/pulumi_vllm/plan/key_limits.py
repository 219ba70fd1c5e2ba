"""Decides what each API key may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.access_config import PRIORITIES, READINESS_KEY, ApiKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.config import Deployment

_LOW = "low"
_ONE_KEY = 512
"""Requests at once of the only key, or as many as the engines serve. Most of them wait."""
_FEW_PLACES = 4


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may ask for in 60 s and at once, and vLLM's number for its priority. No tokens: no limit."""

    name: str
    requests_per_minute: int
    concurrent: int
    tokens_per_minute: int | None
    priority: int


def key_limits(deployment: Deployment) -> tuple[KeyLimits, ...]:
    """The limits of every key of the stack file, and of the readiness check's key."""
    gateway, keys, usual = deployment.gateway, deployment.access.keys, requests_per_key(deployment)
    low = sum(key.priority == _LOW for key in keys)
    # A quarter of the places stays free of them: vLLM takes no place from a request that runs.
    share = max(1, deployment.sequences * 3 // 4 // max(1, low))

    def limits(key: ApiKey) -> KeyLimits:
        return KeyLimits(
            key.name,
            key.requests_per_minute or gateway.requests_per_minute,
            key.concurrent or (min(share, usual) if key.priority == _LOW else usual),
            key.tokens_per_minute,
            PRIORITIES[key.priority],
        )

    return tuple(map(limits, (*keys, ApiKey.model_construct(name=READINESS_KEY))))


def requests_per_key(deployment: Deployment) -> int:
    """Requests at once of a key without `concurrent`.

    Of several keys none fills every place: vLLM takes no place from a request that runs, so others would get 503
    while a key's long answers run. A sixteenth stays for them. With 480 of 512 requests one H200 gives 0.96 of its rate
    (on the line between the measured 256 and 512 streams, docs/explanation/performance.md). Of fewer than four places
    one would be too much.
    """
    places, several = deployment.sequences, len(deployment.access.keys) > 1
    limited = several and places >= _FEW_PLACES
    unset = places - max(1, places // 16) if limited else max(_ONE_KEY, places)
    return deployment.gateway.streams_per_key or unset


def share_of_a_key(deployment: Deployment) -> int:
    """A key with so many requests comes before those that have more: its share of the places in the engines."""
    return max(1, deployment.sequences // len(deployment.access.keys))


def sentences(deployment: Deployment) -> Iterator[str]:
    """What several keys get while requests wait."""
    keys, places = len(deployment.access.keys), deployment.sequences
    if keys > 1:
        most = min(requests_per_key(deployment), places)
        fills = f"{most}, so that others find one" if most < places else "all of them"
        yield (
            f"{keys} keys share {places} places: one without `concurrent` may fill {fills}. While requests wait, "
            f"a key with no more than {share_of_a_key(deployment)} comes first."
        )


def have_priorities(deployment: Deployment) -> bool:
    """Whether any key has another priority than the others."""
    return any(PRIORITIES[key.priority] for key in deployment.access.keys)
