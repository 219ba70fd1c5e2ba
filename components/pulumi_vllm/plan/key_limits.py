"""Decides what each API key may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.access_config import PRIORITIES, READINESS_KEY, ApiKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.config import Deployment

_LOW = "low"


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
    gateway, keys = deployment.gateway, deployment.access.keys
    low = sum(key.priority == _LOW for key in keys)
    # A quarter of the places stays free of them: vLLM takes no place from a request that runs.
    share = max(1, deployment.sequences * 3 // 4 // max(1, low))

    def limits(key: ApiKey) -> KeyLimits:
        usual = gateway.streams_per_key
        return KeyLimits(
            key.name,
            key.requests_per_minute or gateway.requests_per_minute,
            key.concurrent or (min(share, usual) if key.priority == _LOW else usual),
            key.tokens_per_minute,
            PRIORITIES[key.priority],
        )

    return tuple(map(limits, (*keys, ApiKey.model_construct(name=READINESS_KEY))))


def share_of_a_key(deployment: Deployment) -> int:
    """A key with so many requests comes before those that have more: its share of the places in the engines."""
    return max(1, deployment.sequences // len(deployment.access.keys))


def sentences(deployment: Deployment) -> Iterator[str]:
    """What several keys get while requests wait."""
    keys, share = len(deployment.access.keys), share_of_a_key(deployment)
    if keys > 1:
        yield (
            f"{keys} keys share {deployment.sequences} places: a key alone may fill all of them. While requests wait, "
            f"a key with no more than {share} comes first."
        )


def have_priorities(deployment: Deployment) -> bool:
    """Whether any key has another priority than the others."""
    return any(PRIORITIES[key.priority] for key in deployment.access.keys)
