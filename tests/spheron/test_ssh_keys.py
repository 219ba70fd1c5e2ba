"""SSH keys: registered once, found where they are already, removed."""

from __future__ import annotations

import pytest
from pulumi_vllm.spheron.errors import CloudError


@pytest.mark.parametrize("bad", ["drop", "400", "409"])
def test_an_ssh_key_that_is_there_already_is_found(cloud, spheron, answer, bad):
    cloud.always["POST /api/ssh-keys"] = {
        "drop": answer(drop=True),
        "400": answer({"error": "duplicate"}, 400),
        "409": answer({"error": "duplicate"}, 409),
    }[bad]
    cloud.always["GET /api/ssh-keys"] = answer(
        {"sshKeys": [{"id": "k0", "name": "else"}, {"id": "k1", "name": "mine"}]}
    )
    cloud.always["GET /api/ssh-keys/k1"] = answer({"id": "k1", "publicKey": "ssh-ed25519 AAAA somebody"})
    assert spheron.create_ssh_key("mine", "ssh-ed25519 AAAA me").id == "k1"
    with pytest.raises(CloudError):
        spheron.create_ssh_key("mine", "ssh-ed25519 BBBB me")


def test_ssh_keys_come_and_go(cloud, spheron, answer, team):
    cloud.always["POST /api/ssh-keys"] = answer({"id": "k1"}, 201)
    made = spheron.create_ssh_key("mine", "ssh-ed25519 AAAA")
    assert (made.id, made.name, made.public_key) == ("k1", "mine", "ssh-ed25519 AAAA")
    assert cloud.asked[-1].body["teamId"] == team
    cloud.always["DELETE /api/ssh-keys/k1"] = answer()
    spheron.delete_ssh_key("k1")
    spheron.delete_ssh_key("unknown")
