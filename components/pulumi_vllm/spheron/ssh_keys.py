"""SSH keys at the rental API: registered once, and found again after a lost answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron import models
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.models import SshKey

if TYPE_CHECKING:
    from pulumi_vllm.spheron.account import Account
    from pulumi_vllm.spheron.transport import Transport


class SshKeys:
    """`/api/ssh-keys`."""

    def __init__(self, transport: Transport, account: Account) -> None:
        self._transport = transport
        self._account = account

    def list(self) -> tuple[SshKey, ...]:
        """Return the registered keys. `public_key` is None where the list leaves it out."""
        action = "listing SSH keys"
        items = self._transport.get_pages("/api/ssh-keys", "sshKeys", "keys", action=action)
        return tuple(models.ssh_key(item, action=action) for item in items)

    def create(self, name: str, public_key: str) -> SshKey:
        """Register a key, or return its registration when the cloud already has the same key."""
        action = f"registering the SSH key {name}"
        body = {"name": name, "publicKey": public_key, "teamId": self._account.team_id()}
        try:
            answer = self._transport.post("/api/ssh-keys", body, action=action)
            made = models.ssh_key(fields.unwrap(answer, "sshKey", "key", action=action), action=action)
        except CloudError as error:
            if not error.effect_unknown and error.status not in {400, 409}:
                raise
            registered = self._find(name, public_key)
            if registered is None:
                raise
            return registered
        return SshKey(made.id, made.name or name, made.public_key or public_key)

    def delete(self, key_id: str) -> None:
        """Remove a key. One that is not there is a success."""
        try:
            self._transport.delete(_path(key_id), action=f"removing the SSH key {key_id}")
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _find(self, name: str, public_key: str) -> SshKey | None:
        for key in self.list():
            candidate = key
            if key.public_key is None and key.name == name:
                action = f"looking at the SSH key {name}"
                answer = self._transport.get(_path(key.id), action=action)
                item = fields.unwrap(answer, "sshKey", "key", action=action)
                candidate = SshKey(key.id, key.name, fields.text(item, "publicKey"))
            if candidate.is_same_key(public_key):
                return candidate
        return None


def _path(key_id: str) -> str:
    return f"/api/ssh-keys/{quote(key_id, safe='')}"
