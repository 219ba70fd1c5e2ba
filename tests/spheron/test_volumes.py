"""Volumes: handles and ids, re-reads after lost answers, prices that are never guessed."""

from __future__ import annotations

import pytest
from pulumi_vllm.spheron.errors import CloudError

HANDLE = "computefilesystem-u00example01"
LIST = "GET /api/volumes"


@pytest.fixture(autouse=True)
def listed(cloud, answer, volume):
    cloud.always[LIST] = answer({"volumes": [volume()], "totalPages": 1})


def test_a_volume_is_found_by_name_handle_and_id(spheron):
    for found in (
        spheron.volumes.find("ms4-weights"),
        spheron.volumes.get(HANDLE),
        spheron.volumes.get("66f0c0ffee0000000000d001"),
    ):
        assert (found.handle, found.size_gb, found.mount_tag) == (HANDLE, 400, "ms4weights")
    assert spheron.volumes.find("other") is None


def test_deleted_volumes_are_not_listed_nor_deleting_ones_found(cloud, spheron, answer, volume):
    cloud.always[LIST] = answer([volume(status="deleted"), volume(status="deleting", id="2", volumeId="h2")])
    assert [found.id for found in spheron.volumes.list()] == ["2"]
    assert spheron.volumes.find("ms4-weights") is None


def test_the_mount_tag_comes_from_the_api_where_it_has_one(cloud, spheron, answer, volume):
    cloud.always[LIST] = answer(
        [volume(extras={"mountTag": "theirs"}), volume(id="2", providerId="data-crunch", extras=None)]
    )
    assert [found.mount_tag for found in spheron.volumes.list()] == ["theirs", None]


def test_create_sends_every_field_and_survives_a_lost_answer(cloud, spheron, answer, volume, team):
    cloud.once("POST /api/volumes", answer(volume(), 201), answer(drop=True), answer(drop=True))
    assert spheron.volumes.create("ms4-weights", 400, "spheron-es", "US Central 1").handle == HANDLE
    wanted = {
        "name": "ms4-weights",
        "sizeInGb": 400,
        "provider": "spheron-es",
        "region": "US Central 1",
        "teamId": team,
    }
    assert cloud.requests[-1].body == wanted
    assert spheron.volumes.create("ms4-weights", 400, "spheron-es", "US Central 1").handle == HANDLE
    with pytest.raises(CloudError, match="No volume other is listed"):
        spheron.volumes.create("other", 400, "spheron-es", "US Central 1")


def test_a_name_that_is_taken_is_reported(cloud, spheron, answer):
    cloud.always["POST /api/volumes"] = answer({"error": "filesystem already exists"}, 400)
    with pytest.raises(CloudError, match="the team already has something with this name"):
        spheron.volumes.create("ms4-weights", 400, "spheron-es", "US Central 1")


@pytest.mark.parametrize("bad", ["drop", "500", "400"])
def test_attach_believes_the_list_after_a_bad_answer(cloud, spheron, answer, volume, bad):
    cloud.always[f"POST /api/volumes/{HANDLE}/attach"] = {
        "drop": answer(drop=True),
        "500": answer({}, 500),
        "400": answer({"error": "already attached"}, 400),
    }[bad]
    with pytest.raises(CloudError):
        spheron.volumes.attach(HANDLE, "m1")
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    spheron.volumes.attach(HANDLE, "m1")
    assert cloud.count(f"POST /api/volumes/{HANDLE}/attach") == 2


def test_errors_name_volumes_and_instances_that_were_listed(cloud, spheron, *, answer, volume, machine):
    cloud.always[LIST] = answer([volume()])
    for verb in ("attach", "detach"):
        cloud.always[f"POST /api/volumes/{HANDLE}/{verb}"] = answer({"error": "no"}, 500)
    cloud.always["GET /api/deployments/m1"] = answer(machine(id="m1", name="ms4-machine"))
    with pytest.raises(CloudError, match=rf"^attaching the volume {HANDLE} to instance m1: "):
        spheron.volumes.attach(HANDLE, "m1")
    spheron.volumes.list()
    spheron.instances.get("m1")
    named = (
        rf"the volume ms4-weights \({HANDLE}\) {{}} instance ms4-machine \(m1\): the cloud answered 500: no"
    )
    with pytest.raises(CloudError, match="^attaching " + named.format("to")):
        spheron.volumes.attach(HANDLE, "m1")
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    with pytest.raises(CloudError, match="^detaching " + named.format("from")):
        spheron.volumes.detach(HANDLE, "m1")
    cloud.always["DELETE /api/deployments/m1"] = answer({"error": "no"}, 403)
    with pytest.raises(
        CloudError, match=r"^terminating instance ms4-machine \(m1\): the cloud answered 403: no"
    ):
        spheron.instances.terminate("m1")


def test_attach_waits_out_a_429(cloud, spheron, answer, volume):
    cloud.once(f"POST /api/volumes/{HANDLE}/attach", answer({}, 429, {"Retry-After": "1"}), answer(volume()))
    spheron.volumes.attach(HANDLE, "m1")
    assert cloud.requests[-1].body == {"deploymentId": "m1"}


def test_detach_accepts_a_refusal_only_with_ignore_refusal(cloud, spheron, answer, volume):
    cloud.always[f"POST /api/volumes/{HANDLE}/detach"] = answer({"error": "not attached"}, 400)
    spheron.volumes.detach(HANDLE, "m1")  # the list agrees
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    with pytest.raises(CloudError):
        spheron.volumes.detach(HANDLE, "m1")
    spheron.volumes.detach(HANDLE, "m1", ignore_refusal=True)
    cloud.always[f"POST /api/volumes/{HANDLE}/detach"] = answer({"error": "key"}, 401)
    with pytest.raises(CloudError):
        spheron.volumes.detach(HANDLE, "m1", ignore_refusal=True)


def test_delete_takes_both_ids_and_believes_404_only_with_the_list(cloud, spheron, answer):
    cloud.once(f"DELETE /api/volumes/{HANDLE}", answer({"success": True}))
    spheron.volumes.delete("66f0c0ffee0000000000d001")
    with pytest.raises(CloudError, match="404"):
        spheron.volumes.delete(HANDLE)
    cloud.always[LIST] = answer([])
    spheron.volumes.delete(HANDLE)


def test_a_price_that_is_not_published_is_an_error(cloud, spheron, answer):
    cloud.once(
        "GET /api/volumes/pricing",
        answer({"provider": "spheron-es", "hourlyRatePerGb": 0.000132}),
        answer({}),
    )
    assert spheron.volumes.usd_per_gb_hour("spheron-es", "US Central 1") == 0.000132
    assert cloud.requests[-1].query == {"provider": ["spheron-es"], "region": ["US Central 1"]}
    with pytest.raises(CloudError, match="none is published in Mars"):
        spheron.volumes.usd_per_gb_hour("spheron-es", "Mars")


def test_a_volume_with_one_identifier_uses_it_for_both(cloud, spheron, answer):
    cloud.always[LIST] = answer([{"volumeId": "v1"}, {"_id": "v2"}])
    assert [(found.id, found.handle) for found in spheron.volumes.list()] == [("v1", "v1"), ("v2", "v2")]


def test_grow_believes_the_list_after_a_lost_answer(cloud, spheron, answer, volume):
    grow = f"PATCH /api/volumes/{HANDLE}"
    cloud.always[grow] = answer(drop=True)
    with pytest.raises(CloudError):
        spheron.volumes.grow(HANDLE, 500)
    assert cloud.requests[-2].body == {"sizeInGb": 500}
    cloud.always[LIST] = answer([volume(sizeInGb=500)])
    spheron.volumes.grow(HANDLE, 500)
    cloud.always[grow] = answer({"error": "Provider spheron-es does not support changing a volume"}, 400)
    with pytest.raises(CloudError, match="does not support changing"):
        spheron.volumes.grow(HANDLE, 600)
