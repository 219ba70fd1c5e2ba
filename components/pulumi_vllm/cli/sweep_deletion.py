"""Deletion of instances and volumes that `sweep` found."""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from pulumi_vllm.spheron.errors import CloudError, TooEarlyError

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron
    from pulumi_vllm.spheron.inventory import Row

# An instance that was told to end holds its volume until it has ended (300 s in `terminate.py`).
_RELEASED_WITHIN_S = 300.0
_PAUSE_S = 5.0
# A refusal while the volume is attached: client code shows 400; 409 is what HTTP defines for it.
_STILL_ATTACHED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT})


def delete(
    cloud: "Spheron", rows: "Iterable[Row]", sleep: Callable[[float], None] = time.sleep
) -> "dict[str, str | None]":
    """Delete instances, then volumes. Return why each was not deleted, or None, by its id."""
    results: dict[str, str | None] = {}
    for row in sorted(rows, key=lambda row: row.kind):  # instance comes before volume
        try:
            if row.kind == "instance":
                results[row.id] = _terminate(cloud, row)
            else:
                _delete_volume(cloud, row, sleep)
                results[row.id] = None
        except CloudError as error:
            results[row.id] = str(error)
    return results


def _terminate(cloud: "Spheron", row: "Row") -> str | None:
    """Terminate an instance without draining it, because only the lost state has its SSH key."""
    answer = cloud.instances.can_terminate(row.id)
    if not answer.allowed:
        minimum = (
            f"the minimum run time of {answer.minimum_min} min"
            if answer.minimum_min
            else "the minimum run time"
        )
        return f"{minimum} ends in {answer.remaining_min} min; run this again after that"
    try:
        cloud.instances.terminate(row.id)
    except TooEarlyError as error:
        return str(error)
    return None


def _delete_volume(cloud: "Spheron", row: "Row", sleep: Callable[[float], None]) -> None:
    volume = cloud.volumes.get(row.id)
    if volume is None:
        return
    waited_s = 0.0
    while True:
        for instance_id in volume.attached_to:
            if instance_id not in row.attached_to:
                _check_ended(cloud, row, instance_id)
            cloud.volumes.detach(volume.handle, instance_id, ignore_refusal=True)
        try:
            cloud.volumes.delete(volume.handle)
        except CloudError as error:
            if error.status not in _STILL_ATTACHED or waited_s >= _RELEASED_WITHIN_S:
                raise
        else:
            return
        sleep(_PAUSE_S)
        waited_s += _PAUSE_S


def _check_ended(cloud: "Spheron", row: "Row", instance_id: str) -> None:
    """Refuse to detach a volume that an instance has taken since the list was read. Records of ended ones may remain.

    Raises:
        CloudError: the instance is alive.
    """
    holder = cloud.instances.get(instance_id)
    if holder is not None and not holder.terminal:
        raise CloudError(
            f"{row.name}: has been attached to {holder.name} ({instance_id}) meanwhile; nothing was done"
        )
