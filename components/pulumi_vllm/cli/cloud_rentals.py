"""What was rented for one server: the cloud's records, together with what earlier runs of `reconcile` recorded."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pulumi_vllm.plan.names import is_of_resource, is_of_stack
from pulumi_vllm.plan.spending import Rental
from pulumi_vllm.spheron.models import Instance, Volume


def of_server(instances: Iterable[Instance], stack: str, project: str, machine_name: str) -> list[Instance]:
    """Return the instances that were rented for the server, the oldest first."""
    ours = [
        one
        for one in instances
        if is_of_stack(one.name, stack, project) and is_of_resource(one.name, machine_name)
    ]
    return sorted(ours, key=lambda one: one.created_at or "")


def rentals(
    instances: Iterable[Instance],
    known: Mapping[str, Rental],
    ceiling: float,
    now: float,
    *,
    ends_itself: bool = False,
) -> tuple[Rental, ...]:
    """Return the rentals of these instances, and those known ones that the cloud no longer lists.

    What the cloud does not say is taken from `known`. Else the more expensive is assumed: the price is `ceiling`, and
    the end is `now`. A spot machine that is stopped was taken, unless the machine `ends_itself`.
    """
    listed = {
        one.id: _rental(one, known.get(one.id), ceiling, now, ends_itself=ends_itself) for one in instances
    }
    forgotten = {
        name: one if one.ended is not None else _ended(one, now)
        for name, one in known.items()
        if name not in listed
    }
    return tuple(sorted({**forgotten, **listed}.values(), key=lambda one: one.began))


def volume_rental(volume: Volume | None) -> Rental | None:
    """Return the volume as something that is billed on. One without a date counts from the start of each period."""
    if volume is None:
        return None
    return Rental(volume.id, "volume", volume.usd_per_hour or 0.0, _moment(volume.created_at) or 0.0)


def _rental(
    instance: Instance, known: Rental | None, ceiling: float, now: float, *, ends_itself: bool
) -> Rental:
    stopped = _moment(instance.stopped_at)
    ended = None
    if instance.terminal:
        ended = stopped or (known.ended if known and known.ended is not None else now)
    # Some providers stop a spot machine that they take; ending it then gives it another status.
    stopped_by_provider = instance.status == "stopped" and instance.billing == "spot" and not ends_itself
    began = _moment(instance.created_at) or (known.began if known else now)
    return Rental(
        id=instance.id,
        billing=instance.billing,
        usd_per_hour=ceiling if instance.usd_per_hour is None else instance.usd_per_hour,
        began=began,
        ended=None if ended is None else max(ended, began),
        taken=instance.reclaimed or stopped_by_provider or (known is not None and known.taken),
        usd=instance.usd,
    )


def _ended(one: Rental, now: float) -> Rental:
    return Rental(one.id, one.billing, one.usd_per_hour, one.began, now, one.taken, one.usd)


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
