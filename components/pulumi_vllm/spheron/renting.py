"""Renting one machine exactly once: the only call that costs money, on an API without idempotency keys."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pulumi_vllm.spheron import models, wire
from pulumi_vllm.spheron.errors import Ambiguous, CloudError, OutOfStock
from pulumi_vllm.spheron.offers import instance_type

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron
    from pulumi_vllm.spheron.models import CreateInstance, Instance

# Names are unique per team; longer ones than about 50 were refused (seen in client code, 2026-05).
_NAME = re.compile(r"[a-z][a-z0-9-]{2,44}")
_LEAST_BALANCE_USD = 3.0  # the vendor's minimum for a deployment
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)


def rent(cloud: Spheron, wish: CreateInstance) -> Instance:
    """POST once; when nobody knows what became of it, look the name up, and give the found machine."""
    action = f"renting {wish.name}"
    body = _body(wish, action)
    body["teamId"] = cloud.team_id()
    _check_balance(cloud, wish, action)
    cloud.guard.check(wish.name)
    try:
        answer = cloud.http.post("/api/deployments", body, action=action)
        made = models.instance(wire.record(answer, "deployment", action=action), action=action)
    except CloudError as error:
        if error.acted is False:
            raise _refusal(error) from None
        cloud.guard.rented()
        return _look_up(cloud, wish, error)
    cloud.guard.rented()
    return made


def _body(wish: CreateInstance, action: str) -> dict[str, Any]:
    """Everything from one offer: the API refuses a mixture, or worse, takes it."""
    offer = wish.offer
    if not _NAME.fullmatch(wish.name):
        raise CloudError(f"{action}: a name has 3 to 45 of a-z, 0-9 and -, and begins with a letter")
    region = offer.own_region(wish.region)
    if region is None:
        regions = ", ".join(offer.regions)
        raise CloudError(f"{action}: {offer.name} is not in {wish.region}; it is in {regions}")
    if wish.operating_system not in offer.operating_systems:
        systems = ", ".join(offer.operating_systems)
        raise CloudError(f"{action}: {offer.name} has no {wish.operating_system!r}; it has {systems}")
    body: dict[str, Any] = {
        "name": wish.name,
        "provider": offer.provider,
        "offerId": offer.offer_id,
        "gpuType": offer.gpu_type,
        "gpuCount": offer.gpu_count,
        "region": region,
        "operatingSystem": wish.operating_system,
        "instanceType": instance_type(offer),
        "sshKeyId": wish.ssh_key_id,
    }
    if wish.cloud_init:
        body["cloudInit"] = dict(wish.cloud_init)
    if wish.volume_handles:
        body["volumeIds"] = list(wish.volume_handles)
    return body


def _check_balance(cloud: Spheron, wish: CreateInstance, action: str) -> None:
    balance = cloud.balance()
    needed = max(_LEAST_BALANCE_USD, wish.offer.usd_per_hour)
    if balance is not None and balance < needed:
        raise CloudError(
            f"{action}: the team has ${balance:.2f}, and this machine wants ${needed:.2f}; add credit"
        )


def _refusal(error: CloudError) -> CloudError:
    """An offer that is no longer known is out of stock by another name."""
    if error.status == HTTPStatus.NOT_FOUND and not isinstance(error, OutOfStock):
        return OutOfStock(str(error), status=error.status, payload=error.payload)
    return error


def _look_up(cloud: Spheron, wish: CreateInstance, cause: CloudError) -> Instance:
    """The record may appear some time after the request was lost; only then is the machine ours to keep."""
    started = cloud.clock()
    trouble: CloudError = cause
    attempt = 0
    while True:
        try:
            found = cloud.find_instance(wish.name)
        except CloudError as error:
            trouble = error
        else:
            trouble = cause
            if found is not None:
                return found
        if cloud.clock() - started >= cloud.lookup_s:
            break
        cloud.http.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
        attempt += 1
    if isinstance(cause, OutOfStock) and trouble is cause:
        raise cause
    raise Ambiguous(
        f"{cause}. No machine of this name is listed after {cloud.lookup_s:.0f} s"
        + ("" if trouble is cause else f" ({trouble})")
        + "; it may still appear and bill: run the same command again, it adopts the machine",
        wish.name,
        status=cause.status,
    )
