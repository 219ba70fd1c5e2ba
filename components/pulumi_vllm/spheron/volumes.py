"""Volumes: two ids each, attached states that may lie, calls that are read back when an answer is lost."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from pulumi_vllm.spheron import models, wire
from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron
    from pulumi_vllm.spheron.models import Volume


class Volumes:
    """The volume half of the client; reached through `Spheron`."""

    def __init__(self, cloud: Spheron) -> None:
        self._cloud = cloud
        self._names: dict[str, str] = {}

    def all(self) -> tuple[Volume, ...]:
        """Every volume that was not deleted."""
        action = "listing volumes"
        found = [
            models.volume(item, action=action)
            for item in self._cloud.list("/api/volumes", "volumes", action=action)
        ]
        self._names |= {volume.handle: volume.name for volume in found}
        return tuple(volume for volume in found if volume.status != "deleted")

    def find(self, name: str) -> Volume | None:
        """By name, which is unique; one on its way out does not count."""
        return next(
            (volume for volume in self.all() if volume.name == name and volume.status != "deleting"), None
        )

    def one(self, reference: str) -> Volume | None:
        """By handle or database id, from the list: the single GET was never seen to take both."""
        return next((volume for volume in self.all() if reference in {volume.handle, volume.id}), None)

    def create(self, name: str, size_gb: int, provider: str, region: str) -> Volume:
        """POST once, then look the name up if the answer was lost."""
        action = f"creating the volume {name}"
        body = {
            "name": name,
            "sizeInGb": size_gb,
            "provider": provider,
            "region": region,
            "teamId": self._cloud.team_id(),
        }
        try:
            answer = self._cloud.http.post("/api/volumes", body, action=action)
            return models.volume(wire.record(answer, "volume", action=action), action=action)
        except CloudError as error:
            if error.acted is False:
                raise
            found = self.find(name)
            if found is None:
                raise CloudError(
                    f"{error}. No volume {name} is listed so far; run the same command again",
                    status=error.status,
                    acted=None,
                ) from None
            return found

    def grow(self, handle: str, size_gb: int) -> None:
        """PATCH, then read back if it was refused or lost. The API has it "where the provider allows it"."""
        action = f"growing the volume {self._called(handle)} to {size_gb} GB"
        try:
            self._cloud.http.patch(
                f"/api/volumes/{quote(handle, safe='')}", {"sizeInGb": size_gb}, action=action
            )
        except CloudError as error:
            if not self._worth_a_look(error):
                raise
            found = self.one(handle)
            if found is None or (found.size_gb or 0) < size_gb:
                raise

    def delete(self, reference: str) -> None:
        """DELETE by handle; "not found" is believed only when the list agrees."""
        action = f"deleting the volume {self._called(reference)}"
        try:
            self._cloud.http.delete(f"/api/volumes/{quote(reference, safe='')}", action=action)
        except CloudError as error:
            found = self.one(reference)
            if found is None or found.status == "deleting":
                return
            if error.status != HTTPStatus.NOT_FOUND or found.handle == reference:
                raise
            self._cloud.http.delete(f"/api/volumes/{quote(found.handle, safe='')}", action=action)

    def attach(self, handle: str, instance_id: str) -> None:
        """POST, then read back if it was refused or lost: it may be so already."""
        action = f"attaching the volume {self._called(handle)} to machine {self._cloud.called(instance_id)}"
        try:
            self._post(handle, "attach", instance_id, action)
        except CloudError as error:
            if not self._worth_a_look(error):
                raise
            found = self.one(handle)
            if found is None or instance_id not in found.attached_to:
                raise

    def detach(self, handle: str, instance_id: str, *, ignore_errors: bool) -> None:
        """POST, then read back if it was refused or lost."""
        action = f"detaching the volume {self._called(handle)} from machine {self._cloud.called(instance_id)}"
        try:
            self._post(handle, "detach", instance_id, action)
        except CloudError as error:
            if not self._worth_a_look(error):
                raise
            if ignore_errors and error.refused:
                return
            found = self.one(handle)
            if found is not None and instance_id in found.attached_to:
                raise

    def price(self, provider: str, region: str | None) -> float:
        """USD per GB and hour."""
        action = f"asking for the price of volumes at {provider}"
        params = {"provider": provider} | ({"region": region} if region else {})
        answer = self._cloud.http.get("/api/volumes/pricing", action=action, params=params)
        price = wire.number(wire.record(answer, "pricing", action=action), "hourlyRatePerGb", "hourlyRate")
        if price is None:
            where = f" in {region}" if region else ""
            raise CloudError(
                f"{action}: none is published{where}; choose another provider or region for the volume"
            )
        return price

    def _called(self, handle: str) -> str:
        """With the name that a list showed, for a person; the id finds it in the console."""
        name = self._names.get(handle)
        return f"{name} ({handle})" if name else handle

    def _post(self, handle: str, verb: str, instance_id: str, action: str) -> None:
        path = f"/api/volumes/{quote(handle, safe='')}/{verb}"
        self._cloud.http.post(path, {"deploymentId": instance_id}, action=action)

    def _worth_a_look(self, error: CloudError) -> bool:
        """Not where the key is refused, the calls are spent, or nothing was sent at all."""
        return error.status not in {401, 403, 429} and (error.status is not None or error.acted is None)
