"""Instances at the rental API: rented at most once, believed gone only when the list agrees, terminated."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from pulumi_vllm.plan.names import is_same
from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron import models
from pulumi_vllm.spheron.errors import CloudError, UnknownStatusError
from pulumi_vllm.spheron.instance_creation import LOOKUP_S, InstanceCreation
from pulumi_vllm.spheron.models import Instance, InstanceRequest, Termination

if TYPE_CHECKING:
    from pulumi_vllm.spheron.account import Account
    from pulumi_vllm.spheron.known_names import KnownNames
    from pulumi_vllm.spheron.transport import Transport


class Instances:
    """`/api/deployments`."""

    def __init__(
        self, transport: Transport, account: Account, names: KnownNames, *, lookup_s: float = LOOKUP_S
    ) -> None:
        self._transport = transport
        self._account = account
        self._names = names
        self._creation = InstanceCreation(transport, account, self.find, lookup_s=lookup_s)

    def create(self, request: InstanceRequest) -> Instance:
        """Rent one instance, at most once. After a lost answer it is looked up by its name.

        Raises:
            OutOfStockError: the offer cannot be rented; another one may work.
            AmbiguousError: it is unknown whether an instance was rented.
        """
        return self._creation.create(request)

    def list(self) -> tuple[Instance, ...]:
        """Return all instances of the team that the API still lists, terminated ones included."""
        action = "listing instances"
        params = {"teamId": self._account.team_id()}
        items = self._transport.get_pages("/api/deployments", "deployments", action=action, params=params)
        return tuple(self._remembered(models.instance(item, action=action)) for item in items)

    def find(self, name: str) -> Instance | None:
        """Return the live instance of this name, with whatever marks. Terminated and failed ones are ignored.

        Raises:
            CloudError: there are two, and only a person can decide between them.
        """
        live = [found for found in self.list() if is_same(found.name, name) and not found.terminal]
        if len(live) > 1:
            ids = ", ".join(found.id for found in live)
            raise CloudError(
                f"finding {name}: {len(live)} live instances have this name ({ids}); terminate all but one"
            )
        return live[0] if live else None

    def get(self, instance_id: str) -> Instance | None:
        """Return one instance, terminated or not; None when the API neither knows nor lists it.

        An instance that is wrongly taken for gone is forgotten and keeps billing. Therefore a 404 is believed only
        when the list agrees.

        Raises:
            UnknownStatusError: its status is not documented.
        """
        action = f"looking at instance {instance_id}"
        try:
            answer = self._transport.get(_path(instance_id), action=action)
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            found = next((listed for listed in self.list() if listed.id == instance_id), None)
            if found is None:
                return None
        else:
            item = fields.unwrap(answer, "deployment", action=action)
            found = self._remembered(models.instance(item, action=action))
        if found.status not in models.STATUSES:
            raise UnknownStatusError(
                f"{action}: its status is {found.status!r}, which this version does not know; nothing was changed. "
                "Look at the cloud's console, and for a newer pulumi-vllm"
            )
        return found

    def rename(self, instance_id: str, name: str) -> None:
        """Give an instance another name, the only thing that the API changes."""
        action = f"renaming instance {self._names.describe(instance_id)} to {name}"
        self._transport.patch(_path(instance_id), {"name": name}, action=action)
        self._names.remember(instance_id, name)

    def can_terminate(self, instance_id: str) -> Termination:
        """Return whether the minimum run time is over. An unclear answer counts as yes: a DELETE refuses too."""
        action = f"asking whether instance {self._names.describe(instance_id)} may be terminated"
        try:
            answer = self._transport.get(f"{_path(instance_id)}/can-terminate", action=action)
            item = fields.unwrap(answer, action=action)
        except CloudError as error:
            never_sent = error.status is None and not error.effect_unknown
            if error.status in {401, 403, 429} or never_sent:
                raise
            return Termination(allowed=True, remaining_min=0, minimum_min=None)
        # A "no" without minutes describes an instance that has already ended. Waiting for it would not end.
        remaining = 0 if item.get("canTerminate") is not False else fields.integer(item, "timeRemaining") or 0
        return Termination(
            allowed=remaining <= 0,
            remaining_min=max(0, remaining),
            minimum_min=fields.integer(item, "minimumRuntime"),
        )

    def terminate(self, instance_id: str) -> None:
        """Terminate an instance. One that has already ended is a success.

        Raises:
            TooEarlyError: the minimum run time is not over; the instance keeps running and billing.
        """
        action = f"terminating instance {self._names.describe(instance_id)}"
        try:
            self._transport.delete(_path(instance_id), action=action)
        except CloudError as error:
            ended = (
                error.status == HTTPStatus.NOT_FOUND
                or fields.text(error.payload, "currentStatus") in models.TERMINAL
            )
            if not ended:
                raise

    def _remembered(self, found: Instance) -> Instance:
        self._names.remember(found.id, found.name)
        return found


def _path(instance_id: str) -> str:
    return f"/api/deployments/{quote(instance_id, safe='')}"
