"""Creation of one instance, exactly once: the only call that costs money, on an API without idempotency keys."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron import models
from pulumi_vllm.spheron.errors import AmbiguousError, CloudError, OutOfStockError
from pulumi_vllm.spheron.offer_listing import instance_type
from pulumi_vllm.spheron.rental_limit import RentalLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulumi_vllm.spheron.account import Account
    from pulumi_vllm.spheron.models import Instance, InstanceRequest
    from pulumi_vllm.spheron.transport import Transport

# Names are unique per team. Names longer than about 50 were refused (client code of Spheron users, 2026-05).
_NAME = re.compile(r"[a-z][a-z0-9-]{2,44}")
_MINIMUM_BALANCE_USD = 3.0  # the vendor's minimum for a deployment
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
LOOKUP_S = 60.0
"""How long an instance is looked for after a lost answer."""


class InstanceCreation:
    """POST to `/api/deployments`, with a lookup by name when the answer is lost."""

    def __init__(
        self,
        transport: Transport,
        account: Account,
        find: Callable[[str], Instance | None],
        *,
        lookup_s: float = LOOKUP_S,
    ) -> None:
        self._transport = transport
        self._account = account
        self._find = find
        self._lookup_s = lookup_s
        self._limit = RentalLimit(clock=transport.clock)

    def create(self, request: InstanceRequest) -> Instance:
        """Send one POST. When its effect is unknown, look for the name and return the instance that was found."""
        action = f"renting {request.name}"
        body = _body(request, action)
        body["teamId"] = self._account.team_id()
        self._check_balance(request, action)
        self._limit.check(request.name)
        try:
            answer = self._transport.post("/api/deployments", body, action=action)
            made = models.instance(fields.unwrap(answer, "deployment", action=action), action=action)
        except CloudError as error:
            if not error.effect_unknown:
                raise _refusal(error) from None
            self._limit.record()
            return self._look_up(request, error)
        self._limit.record()
        return made

    def _check_balance(self, request: InstanceRequest, action: str) -> None:
        balance = self._account.balance_usd()
        needed = max(_MINIMUM_BALANCE_USD, request.offer.usd_per_hour)
        if balance is not None and balance < needed:
            raise CloudError(
                f"{action}: the team has ${balance:.2f}, and this machine needs ${needed:.2f}; add credit"
            )

    def _look_up(self, request: InstanceRequest, cause: CloudError) -> Instance:
        """Wait for the name to appear in the list, which may happen some time after the lost request."""
        started = self._transport.clock()
        last_error = cause
        attempt = 0
        while True:
            try:
                found = self._find(request.name)
            except CloudError as error:
                last_error = error
            else:
                last_error = cause
                if found is not None:
                    return found
            if self._transport.clock() - started >= self._lookup_s:
                break
            self._transport.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1
        if isinstance(cause, OutOfStockError) and last_error is cause:
            raise cause
        raise AmbiguousError(
            f"{cause}. No instance of this name is listed after {self._lookup_s:.0f} s"
            + ("" if last_error is cause else f" ({last_error})")
            + "; it may still appear and bill: run the same command again, which adopts the instance",
            status=cause.status,
            effect_unknown=True,
        )


def _body(request: InstanceRequest, action: str) -> dict[str, Any]:
    """Take every field from the one offer: the API refuses a mixture, or worse, accepts it."""
    offer = request.offer
    if not _NAME.fullmatch(request.name):
        raise CloudError(f"{action}: a name has 3 to 45 of a-z, 0-9 and -, and begins with a letter")
    region = offer.own_region(request.region)
    if region is None:
        regions = ", ".join(offer.regions)
        raise CloudError(f"{action}: {offer.name} is not in {request.region}; it is in {regions}")
    if request.operating_system not in offer.operating_systems:
        systems = ", ".join(offer.operating_systems)
        raise CloudError(f"{action}: {offer.name} has no {request.operating_system!r}; it has {systems}")
    body: dict[str, Any] = {
        "name": request.name,
        "provider": offer.provider,
        "offerId": offer.offer_id,
        "gpuType": offer.gpu_type,
        "gpuCount": offer.gpu_count,
        "region": region,
        "operatingSystem": request.operating_system,
        "instanceType": instance_type(offer),
        "sshKeyId": request.ssh_key_id,
    }
    if request.cloud_init:
        body["cloudInit"] = dict(request.cloud_init)
    return body


def _refusal(error: CloudError) -> CloudError:
    """Return a 404 as out of stock: the offer is no longer known."""
    if error.status == HTTPStatus.NOT_FOUND and not isinstance(error, OutOfStockError):
        return OutOfStockError(str(error), status=error.status, payload=error.payload)
    return error
