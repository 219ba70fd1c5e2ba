"""SSH keys: registered once, and found again when an answer is lost."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from pulumi_vllm.spheron import models, wire
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.models import SshKey

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron


class SshKeys:
    """The SSH keys' part of the client; reached through `Spheron`."""

    def __init__(self, cloud: Spheron) -> None:
        self._cloud = cloud

    def all(self) -> tuple[SshKey, ...]:
        """The registered keys; the key itself is None where the list leaves it out."""
        action = "listing SSH keys"
        found = self._cloud.list("/api/ssh-keys", "sshKeys", "keys", action=action)
        return tuple(models.ssh_key(item, action=action) for item in found)

    def create(self, name: str, public_key: str) -> SshKey:
        """POST once, then look for the very same key if it was refused or the answer was lost."""
        action = f"registering the SSH key {name}"
        body = {"name": name, "publicKey": public_key, "teamId": self._cloud.team_id()}
        try:
            answer = self._cloud.http.post("/api/ssh-keys", body, action=action)
            item = wire.record(answer, "sshKey", "key", action=action)
            made = models.ssh_key(item, action=action)
        except CloudError as error:
            if error.acted is False and error.status not in {400, 409}:
                raise
            made_before = self._find(name, public_key)
            if made_before is None:
                raise
            return made_before
        return SshKey(made.id, made.name or name, made.public_key or public_key)

    def delete(self, key_id: str) -> None:
        """DELETE; "not found" is a success."""
        try:
            self._cloud.http.delete(
                f"/api/ssh-keys/{quote(key_id, safe='')}", action=f"removing the SSH key {key_id}"
            )
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _find(self, name: str, public_key: str) -> SshKey | None:
        for key in self.all():
            known = key.public_key
            if known is None and key.name == name:
                action = f"looking at the SSH key {name}"
                answer = self._cloud.http.get(f"/api/ssh-keys/{quote(key.id, safe='')}", action=action)
                known = wire.text(wire.record(answer, "sshKey", "key", action=action), "publicKey")
            if known is not None and _same_key(known, public_key):
                return SshKey(key.id, key.name, known)
        return None


def _same_key(one: str, other: str) -> bool:
    """By type and key; the comment is anybody's, and the API's fingerprint was seen to be a constant."""
    return re.split(r"\s+", one.strip())[:2] == re.split(r"\s+", other.strip())[:2]
