"""Our instances and volumes at the cloud, with their price per day and what the Pulumi states say about them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from pulumi_vllm.plan.names import is_of_stack, is_ours, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pulumi_vllm.spheron.models import Instance, Volume

_HOURS_PER_DAY = 24
# The host powers off by itself, and drains before. What runs a quarter of an hour later does not end by itself.
_GRACE = timedelta(minutes=15)


class Claim(Enum):
    """What the states that were read say about an instance or a volume."""

    IN_STATE = "in state"
    """A state contains it."""
    KEPT = "kept"
    """A volume of a stack whose state was read and does not contain it, as after `pulumi destroy`. Nothing uses it."""
    LEFT_OVER = "left over"
    """It belongs to a stack whose state was read and does not contain it: no `pulumi destroy` ends it."""
    ANOTHER_STACK = "another stack"
    """It belongs to a stack whose state was not read."""


class States(NamedTuple):
    """The content of the states that were read."""

    ids: Mapping[str, str]
    """Project and stack, as "project/stack", by the id of each instance and volume."""
    stacks: frozenset[tuple[str, str]]
    """Stack and project of each state."""
    creating: frozenset[tuple[str, str]] = frozenset()
    """Stack and project of each state whose last update is creating an instance or a volume, or was interrupted then.
    The state contains it only when it is ready."""
    all_states: bool = False
    """Whether no other state exists, so that nothing belongs to another stack."""

    def knows_stack_of(self, name: str) -> bool:
        """Whether the state was read of the stack that created an instance or volume of this name."""
        return self.all_states or any(is_of_stack(name, stack, project) for stack, project in self.stacks)

    def creator_of(self, name: str) -> str | None:
        """Return project and stack of an update that may be creating an instance or volume of this name."""
        found = (
            f"{project}/{stack}" for stack, project in self.creating if is_of_stack(name, stack, project)
        )
        return next(found, None)


class Row(NamedTuple):
    """An instance or a volume that carries our mark, and is billed."""

    kind: str
    """instance or volume."""
    id: str
    name: str
    status: str
    usd_per_day: float
    claim: Claim
    stack: str | None = None
    """Project and stack whose state contains it."""
    creator: str | None = None
    """Project and stack whose update may be creating it."""
    attached_to: tuple[str, ...] = ()
    """Ids of the live instances that a volume is attached to."""
    owner: str | None = None
    """Who is responsible, as the name tells."""
    expires: datetime | None = None
    """When its period ends, as the name tells."""

    def is_expired(self, now: datetime) -> bool:
        """Whether it is an instance that is powered off, which no call of the API starts again, or past its period."""
        if self.kind != "instance":
            return False
        return self.status == "stopped" or (self.expires is not None and self.expires + _GRACE <= now)


def inventory(instances: Iterable[Instance], volumes: Iterable[Volume], states: States) -> list[Row]:
    """Return our live instances and volumes, the most expensive first.

    The cloud's lists must be older than the states, so that what an update rents meanwhile is in neither.
    """
    live = [instance for instance in instances if not instance.gone]
    ours = [_instance(instance, states) for instance in live if is_ours(instance.name)]
    claims = {row.id: row.claim for row in ours}
    live_ids = {instance.id for instance in live}
    stored = [
        _volume(volume, states, claims, live_ids)
        for volume in volumes
        if is_ours(volume.name) and volume.status not in {"deleting", "deleted"}
    ]
    return sorted([*ours, *stored], key=lambda row: -row.usd_per_day)


def _instance(instance: Instance, states: States) -> Row:
    stack = states.ids.get(instance.id)
    claim = Claim.LEFT_OVER if states.knows_stack_of(instance.name) else Claim.ANOTHER_STACK
    return Row(
        kind="instance",
        id=instance.id,
        name=instance.name,
        status=instance.status,
        usd_per_day=(instance.usd_per_hour or 0.0) * _HOURS_PER_DAY,
        claim=Claim.IN_STATE if stack else claim,
        stack=stack,
        creator=None if stack else states.creator_of(instance.name),
        owner=mark_of(instance.name).owner,
        expires=mark_of(instance.name).expires,
    )


def _volume(volume: Volume, states: States, claims: Mapping[str, Claim], live_ids: set[str]) -> Row:
    """Return the row of a volume. One that is attached belongs with its instance."""
    stack = states.ids.get(volume.id)
    holders = tuple(instance for instance in volume.attached_to if instance in live_ids)
    if stack:
        claim = Claim.IN_STATE
    elif holders:
        claim = claims.get(holders[0], Claim.ANOTHER_STACK)
    else:
        claim = Claim.KEPT if states.knows_stack_of(volume.name) else Claim.ANOTHER_STACK
    return Row(
        kind="volume",
        id=volume.id,
        name=volume.name,
        status=volume.status,
        usd_per_day=(volume.usd_per_hour or 0.0) * _HOURS_PER_DAY,
        claim=claim,
        stack=stack,
        creator=None if stack else states.creator_of(volume.name),
        attached_to=holders,
    )
