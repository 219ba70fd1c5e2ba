"""SSH keys: registered once, found when they exist already, removed."""

from __future__ import annotations

import pytest
from pulumi_vllm.spheron.errors import CloudError


@pytest.mark.parametrize("bad", ["drop", "400", "409"])
def test_a_key_that_is_registered_already_is_returned(cloud, spheron, answer, bad):
    cloud.always["POST /api/ssh-keys"] = {
        "drop": answer(drop=True),
        "400": answer({"error": "duplicate"}, 400),
        "409": answer({"error": "duplicate"}, 409),
    }[bad]
    cloud.always["GET /api/ssh-keys"] = answer(
        {"sshKeys": [{"id": "k0", "name": "else"}, {"id": "k1", "name": "mine"}]}
    )
    cloud.always["GET /api/ssh-keys/k1"] = answer({"id": "k1", "publicKey": "ssh-ed25519 AAAA somebody"})
    assert spheron.ssh_keys.create("mine", "ssh-ed25519 AAAA me").id == "k1"
    with pytest.raises(CloudError):
        spheron.ssh_keys.create("mine", "ssh-ed25519 BBBB me")


def test_a_key_is_registered_and_removed(cloud, spheron, answer, team):
    cloud.always["POST /api/ssh-keys"] = answer({"id": "k1"}, 201)
    made = spheron.ssh_keys.create("mine", "ssh-ed25519 AAAA")
    assert (made.id, made.name, made.public_key) == ("k1", "mine", "ssh-ed25519 AAAA")
    assert cloud.requests[-1].body["teamId"] == team
    cloud.always["DELETE /api/ssh-keys/k1"] = answer()
    spheron.ssh_keys.delete("k1")
    spheron.ssh_keys.delete("unknown")
