"""Volumes at the rental API: two identifiers per volume, stale attachments, and re-reads after a lost answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron import models
from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from pulumi_vllm.spheron.account import Account
    from pulumi_vllm.spheron.known_names import KnownNames
    from pulumi_vllm.spheron.models import Volume
    from pulumi_vllm.spheron.transport import Transport


class Volumes:
    """`/api/volumes`."""

    def __init__(self, transport: Transport, account: Account, names: KnownNames) -> None:
        self._transport = transport
        self._account = account
        self._names = names

    def list(self) -> tuple[Volume, ...]:
        """Return all volumes that are not deleted."""
        action = "listing volumes"
        items = self._transport.get_pages("/api/volumes", "volumes", action=action)
        found = [models.volume(item, action=action) for item in items]
        for volume in found:
            self._names.remember(volume.handle, volume.name)
        return tuple(volume for volume in found if volume.status != "deleted")

    def find(self, name: str) -> Volume | None:
        """Return the volume of this name, which is unique. One that is being deleted is ignored."""
        return next(
            (volume for volume in self.list() if volume.name == name and volume.status != "deleting"), None
        )

    def get(self, reference: str) -> Volume | None:
        """Return the volume with this handle or id, from the list: the GET of one volume may not take both."""
        return next((volume for volume in self.list() if reference in {volume.handle, volume.id}), None)

    def create(self, name: str, size_gb: int, provider: str, region: str) -> Volume:
        """Create a volume. After a lost answer it is looked up by its name."""
        action = f"creating the volume {name}"
        body = {
            "name": name,
            "sizeInGb": size_gb,
            "provider": provider,
            "region": region,
            "teamId": self._account.team_id(),
        }
        try:
            answer = self._transport.post("/api/volumes", body, action=action)
            return models.volume(fields.unwrap(answer, "volume", action=action), action=action)
        except CloudError as error:
            if not error.effect_unknown:
                raise
            found = self.find(name)
            if found is None:
                raise CloudError(
                    f"{error}. No volume {name} is listed so far; run the same command again",
                    status=error.status,
                    effect_unknown=True,
                ) from None
            return found

    def grow(self, handle: str, size_gb: int) -> None:
        """Make a volume larger. The API documents this as "where the provider allows it"."""
        action = f"growing the volume {self._names.describe(handle)} to {size_gb} GB"
        try:
            self._transport.patch(_path(handle), {"sizeInGb": size_gb}, action=action)
        except CloudError as error:
            if not _worth_a_reread(error):
                raise
            found = self.get(handle)
            if found is None or found.size_gb < size_gb:
                raise

    def delete(self, reference: str) -> None:
        """Delete a detached volume and its content. One that is not there is a success.

        A 404 is believed only when the list agrees.
        """
        action = f"deleting the volume {self._names.describe(reference)}"
        try:
            self._transport.delete(_path(reference), action=action)
        except CloudError as error:
            found = self.get(reference)
            if found is None or found.status == "deleting":
                return
            if error.status != HTTPStatus.NOT_FOUND or found.handle == reference:
                raise
            self._transport.delete(_path(found.handle), action=action)

    def attach(self, handle: str, instance_id: str) -> None:
        """Attach a volume. Some providers restart the instance for it."""
        action = f"attaching the volume {self._describe(handle, 'to', instance_id)}"
        try:
            self._post(handle, "attach", instance_id, action)
        except CloudError as error:
            if not _worth_a_reread(error):
                raise
            found = self.get(handle)
            if found is None or instance_id not in found.attached_to:
                raise

    def detach(self, handle: str, instance_id: str, *, ignore_refusal: bool = False) -> None:
        """Detach a volume. With `ignore_refusal`, a refusal counts as "was not attached"."""
        action = f"detaching the volume {self._describe(handle, 'from', instance_id)}"
        try:
            self._post(handle, "detach", instance_id, action)
        except CloudError as error:
            if not _worth_a_reread(error):
                raise
            if ignore_refusal and error.refused:
                return
            found = self.get(handle)
            if found is not None and instance_id in found.attached_to:
                raise

    def usd_per_gb_hour(self, provider: str, region: str | None = None) -> float:
        """Return the price per GB and hour.

        Raises:
            CloudError: the cloud publishes no price.
        """
        action = f"asking for the price of volumes at {provider}"
        params = {"provider": provider} | ({"region": region} if region else {})
        answer = self._transport.get("/api/volumes/pricing", action=action, params=params)
        item = fields.unwrap(answer, "pricing", action=action)
        price = fields.number(item, "hourlyRatePerGb", "hourlyRate")
        if price is None:
            where = f" in {region}" if region else ""
            raise CloudError(
                f"{action}: none is published{where}; choose another provider or region for the volume"
            )
        return price

    def _post(self, handle: str, verb: str, instance_id: str, action: str) -> None:
        self._transport.post(f"{_path(handle)}/{verb}", {"deploymentId": instance_id}, action=action)

    def _describe(self, handle: str, preposition: str, instance_id: str) -> str:
        volume, instance = self._names.describe(handle), self._names.describe(instance_id)
        return f"{volume} {preposition} instance {instance}"


def _path(reference: str) -> str:
    return f"/api/volumes/{quote(reference, safe='')}"


def _worth_a_reread(error: CloudError) -> bool:
    """Whether the list may show the wanted state all the same: not where nothing was sent or the key was refused."""
    return error.status not in {401, 403, 429} and (error.status is not None or error.effect_unknown)
