"""Volumes, SSH keys and teams in the simulated API."""

from __future__ import annotations

import pytest


def _attach(api, volume, deployment, verb="attach"):
    return api.post(f"/api/volumes/{volume}/{verb}", json={"deploymentId": deployment})


def test_only_the_handle_identifies_a_volume(api):
    volume = api.volume("spheron-es", "ms4-weights")
    assert volume["volumeId"].startswith("computefilesystem-")
    assert volume["extras"]["mountTag"] == "ms4weights"
    assert api.get(f"/api/volumes/{volume['volumeId']}").json()["name"] == "ms4-weights"
    wrong = api.delete(f"/api/volumes/{volume['id']}")
    assert (wrong.status_code, wrong.json()["error"]) == (404, "Volume not found")
    assert api.get("/api/volumes").json()["volumes"][0]["status"] == "available"
    assert api.machines.disks.disks[volume["volumeId"]].kind == "share"
    api.sim("profile/spheron-es", accepts_volume_id=True)
    assert api.delete(f"/api/volumes/{volume['id']}").json() == {"success": True}
    assert api.machines.disks.disks == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Big"},
        {"sizeInGb": 0},
        {"sizeInGb": "10"},
        {"provider": "massed-compute"},
        {"region": "Mars 1"},
        {"region": None},
    ],
)
def test_invalid_volumes_are_refused(api, changes):
    body = {"name": "w", "sizeInGb": 10, "provider": "data-crunch", "region": "Finland 3"} | changes
    assert api.post("/api/volumes", json=body).status_code == 400


def test_a_duplicate_name_is_refused(api):
    api.volume()
    body = {"name": "weights", "sizeInGb": 10, "provider": "data-crunch", "region": "Finland 3"}
    assert "filesystem already exists" in api.post("/api/volumes", json=body).text


def test_a_block_volume_is_attached_to_a_running_machine(api):
    machine, volume = api.running(), api.volume()["volumeId"]
    answer = _attach(api, volume, machine).json()
    assert (answer["status"], answer["attachedToDeploymentIds"]) == ("attached", [machine])
    assert ("attach", machine, volume) in api.machines.log
    assert api.delete(f"/api/volumes/{volume}").status_code == 400
    api.machines.mounted = True
    refused = _attach(api, volume, machine, "detach")
    assert refused.status_code == 400
    assert "mounted" in refused.text
    api.machines.mounted = False
    assert _attach(api, volume, machine, "detach").json()["status"] == "available"


def test_a_share_named_at_create_is_not_attached(api):
    volume = api.volume("spheron-es")["volumeId"]
    machine = api.running(api.offer("spheron-es"), volumeIds=[volume])
    assert api.get(f"/api/volumes/{volume}").json()["status"] == "attached"
    assert api.machines.disks.disks[volume].machine is None
    assert _attach(api, volume, machine).status_code == 200
    api.until(lambda: api.machines.disks.disks[volume].machine == machine)
    assert _attach(api, volume, machine, "detach").status_code == 200
    api.until(lambda: api.machines.disks.disks[volume].machine is None)
    assert ("detach", machine, volume, True) in api.machines.log


def test_a_block_volume_named_at_create_is_attached_at_boot(api):
    volume = api.volume()["volumeId"]
    machine = api.running(volumeIds=[volume])
    calls = [call[0] for call in api.machines.log if call[1] == machine]
    assert calls.index("attach") < calls.index("start")


def test_attach_checks_region_writers_and_status(api):
    disk, share = api.volume()["volumeId"], api.volume("spheron-es", "share")["volumeId"]
    one, two = api.running(), api.running(name="two")
    assert _attach(api, share, one).status_code == 400
    assert _attach(api, disk, one).status_code == 200
    assert "already attached" in _attach(api, disk, two).text
    assert _attach(api, disk, "66f0").status_code == 404
    assert _attach(api, disk, two, "detach").status_code == 400
    park = api.offer("voltage-park", "L40S_PCIE")
    third = api.create(park, name="three")["id"]
    api.sim("reclaim/three")
    assert _attach(api, disk, third).status_code == 400


def test_an_attachment_stays_stale_after_a_reclaim(api):
    volume = api.volume("spheron-es")["volumeId"]
    machine = api.running(api.offer("spheron-es"))
    _attach(api, volume, machine)
    api.until(lambda: api.machines.disks.disks[volume].machine == machine)
    api.sim(f"reclaim/{machine}")
    api.until(lambda: api.status(machine) == "terminated-provider")
    other = api.running(api.offer("spheron-es"), name="two")
    assert "already attached" in _attach(api, volume, other).text
    assert _attach(api, volume, machine, "detach").status_code == 200
    assert _attach(api, volume, other).status_code == 200


def test_volume_prices_and_regions(api):
    price = api.get("/api/volumes/pricing?provider=spheron-es").json()
    assert price == {"provider": "spheron-es", "hourlyRatePerGb": 0.0001320313}
    regions = api.get("/api/volumes/regions?provider=data-crunch").json()
    assert [(item["id"], item["hasGpuOffers"]) for item in regions["regions"]] == [
        ("Finland 3", True),
        ("Iceland 1", False),
    ]
    assert api.get("/api/volumes/regions").json()["regions"][0]["id"] == "us-east-virginia-1"


def test_ssh_keys(api):
    key = {"name": "mine", "publicKey": "ssh-ed25519 AAAA me"}
    made = api.post("/api/ssh-keys", json=key)
    assert made.status_code == 201
    assert api.post("/api/ssh-keys", json=key).status_code == 400
    assert api.post("/api/ssh-keys", json={"name": "bad", "publicKey": "PRIVATE"}).status_code == 400
    assert [item["name"] for item in api.get("/api/ssh-keys").json()] == ["mine"]
    path = f"/api/ssh-keys/{made.json()['id']}"
    assert api.get(path).json()["publicKey"] == key["publicKey"]
    machine = api.create(ssh_public_key=None, sshKeyId=made.json()["id"])
    assert machine["sshKeyId"] == made.json()["id"]
    assert api.delete(path).json() == {"success": True}
    assert api.get(path).status_code == 404


def test_team_and_balance(api):
    team = api.get("/api/balance").json()["teams"][0]
    assert (team["teamId"], team["isCurrentTeam"], team["balance"]) == (api.store.team_id, True, 10_000)
    assert api.get("/api/teams").json()["teams"][0]["id"] == api.store.team_id
    assert api.get("/api/kubernetes/versions").json()["versions"]
    assert api.get("/api/kubernetes/abc/health").status_code == 404


def test_a_volume_grows_only_where_its_provider_allows_it(api):
    handle = api.volume("spheron-es", "ms4-weights", size=10)["volumeId"]

    def change(**body):
        return api.call("PATCH", f"/api/volumes/{handle}", json=body)

    refused = change(sizeInGb=20)
    assert refused.status_code == 400
    assert "does not support changing a volume" in refused.text
    api.sim("profile/spheron-es", volume_grows=True)
    assert [change(**body).status_code for body in ({"sizeInGb": 9}, {"name": "x"}, {"sizeInGb": "20"})] == [
        400
    ] * 3
    assert change(sizeInGb=20).json()["sizeInGb"] == 20
    assert api.machines.disks.disks[handle].size_gb == 20
    machine = api.running(api.offer("spheron-es"))
    _attach(api, handle, machine)
    api.until(lambda: api.machines.disks.disks[handle].machine == machine)
    before = len(api.machines.log)
    api.machines.disks.live = False
    assert change(sizeInGb=30).json()["sizeInGb"] == 30
    api.until(lambda: [call[0] for call in api.machines.log[before:]] == ["stop", "start"])
