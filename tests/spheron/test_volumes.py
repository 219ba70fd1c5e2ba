"""Volumes: handles and ids, lost answers read back, prices that are never guessed."""

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
        spheron.find_volume("ms4-weights"),
        spheron.volume(HANDLE),
        spheron.volume("66f0c0ffee0000000000d001"),
    ):
        assert (found.handle, found.size_gb, found.mount_tag, found.mount_kind) == (
            HANDLE,
            400,
            "ms4weights",
            "virtiofs",
        )
    assert spheron.find_volume("other") is None


def test_deleted_ones_are_not_listed_and_leaving_ones_not_found(cloud, spheron, answer, volume):
    cloud.always[LIST] = answer([volume(status="deleted"), volume(status="deleting", id="2", volumeId="h2")])
    assert [found.id for found in spheron.volumes()] == ["2"]
    assert spheron.find_volume("ms4-weights") is None


def test_the_tag_is_the_apis_where_it_has_one(cloud, spheron, answer, volume):
    cloud.always[LIST] = answer(
        [volume(extras={"mountTag": "theirs"}), volume(id="2", providerId="data-crunch", extras=None)]
    )
    assert [found.mount_tag for found in spheron.volumes()] == ["theirs", None]


def test_create_sends_what_the_api_wants_and_survives_a_lost_answer(cloud, spheron, answer, volume, team):
    cloud.once("POST /api/volumes", answer(volume(), 201), answer(drop=True), answer(drop=True))
    assert spheron.create_volume("ms4-weights", 400, "spheron-es", "US Central 1").handle == HANDLE
    wanted = {
        "name": "ms4-weights",
        "sizeInGb": 400,
        "provider": "spheron-es",
        "region": "US Central 1",
        "teamId": team,
    }
    assert cloud.asked[-1].body == wanted
    assert spheron.create_volume("ms4-weights", 400, "spheron-es", "US Central 1").handle == HANDLE
    with pytest.raises(CloudError, match="No volume other is listed"):
        spheron.create_volume("other", 400, "spheron-es", "US Central 1")


def test_a_taken_name_is_a_sentence(cloud, spheron, answer):
    cloud.always["POST /api/volumes"] = answer({"error": "filesystem already exists"}, 400)
    with pytest.raises(CloudError, match="something else of the team has this name"):
        spheron.create_volume("ms4-weights", 400, "spheron-es", "US Central 1")


@pytest.mark.parametrize("bad", ["drop", "500", "400"])
def test_attach_believes_the_list_when_the_answer_is_bad(cloud, spheron, answer, volume, bad):
    cloud.always[f"POST /api/volumes/{HANDLE}/attach"] = {
        "drop": answer(drop=True),
        "500": answer({}, 500),
        "400": answer({"error": "already attached"}, 400),
    }[bad]
    with pytest.raises(CloudError):
        spheron.attach(HANDLE, "m1")
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    spheron.attach(HANDLE, "m1")
    assert cloud.count(f"POST /api/volumes/{HANDLE}/attach") == 2


def test_a_volume_and_a_machine_that_were_seen_have_their_names_in_a_sentence(
    cloud, spheron, *, answer, volume, machine
):
    cloud.always[LIST] = answer([volume()])
    for verb in ("attach", "detach"):
        cloud.always[f"POST /api/volumes/{HANDLE}/{verb}"] = answer({"error": "no"}, 500)
    cloud.always["GET /api/deployments/m1"] = answer(machine(id="m1", name="ms4-machine"))
    with pytest.raises(CloudError, match=rf"^attaching the volume {HANDLE} to machine m1: "):
        spheron.attach(HANDLE, "m1")
    spheron.volumes()
    spheron.instance("m1")
    named = (
        rf"the volume ms4-weights \({HANDLE}\) {{}} machine ms4-machine \(m1\): the cloud answered 500: no"
    )
    with pytest.raises(CloudError, match="^attaching " + named.format("to")):
        spheron.attach(HANDLE, "m1")
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    with pytest.raises(CloudError, match="^detaching " + named.format("from")):
        spheron.detach(HANDLE, "m1")
    cloud.always["DELETE /api/deployments/m1"] = answer({"error": "no"}, 403)
    with pytest.raises(CloudError, match=r"^ending machine ms4-machine \(m1\): the cloud answered 403: no"):
        spheron.terminate("m1")


def test_attach_waits_out_a_429(cloud, spheron, answer, volume):
    cloud.once(f"POST /api/volumes/{HANDLE}/attach", answer({}, 429, {"Retry-After": "1"}), answer(volume()))
    spheron.attach(HANDLE, "m1")
    assert cloud.asked[-1].body == {"deploymentId": "m1"}


def test_detach_takes_a_refusal_as_done_only_when_told_to(cloud, spheron, answer, volume):
    cloud.always[f"POST /api/volumes/{HANDLE}/detach"] = answer({"error": "not attached"}, 400)
    spheron.detach(HANDLE, "m1")  # the list agrees
    cloud.always[LIST] = answer([volume(attachedToDeploymentIds=["m1"])])
    with pytest.raises(CloudError):
        spheron.detach(HANDLE, "m1")
    spheron.detach(HANDLE, "m1", ignore_errors=True)
    cloud.always[f"POST /api/volumes/{HANDLE}/detach"] = answer({"error": "key"}, 401)
    with pytest.raises(CloudError):
        spheron.detach(HANDLE, "m1", ignore_errors=True)


def test_delete_takes_either_id_and_believes_404_only_with_the_list(cloud, spheron, answer):
    cloud.once(f"DELETE /api/volumes/{HANDLE}", answer({"success": True}))
    spheron.delete_volume("66f0c0ffee0000000000d001")
    with pytest.raises(CloudError, match="404"):
        spheron.delete_volume(HANDLE)
    cloud.always[LIST] = answer([])
    spheron.delete_volume(HANDLE)


def test_the_price_is_read_or_refused(cloud, spheron, answer):
    cloud.once(
        "GET /api/volumes/pricing",
        answer({"provider": "spheron-es", "hourlyRatePerGb": 0.000132}),
        answer({}),
    )
    assert spheron.volume_price("spheron-es", "US Central 1") == 0.000132
    assert cloud.asked[-1].query == {"provider": ["spheron-es"], "region": ["US Central 1"]}
    with pytest.raises(CloudError, match="none is published in Mars"):
        spheron.volume_price("spheron-es", "Mars")


def test_a_volume_whose_api_has_one_id_only(cloud, spheron, answer):
    cloud.always[LIST] = answer([{"volumeId": "v1"}, {"_id": "v2"}])
    assert [(found.id, found.handle) for found in spheron.volumes()] == [("v1", "v1"), ("v2", "v2")]


def test_growing_believes_the_list_when_the_answer_is_lost_and_says_a_refusal(cloud, spheron, answer, volume):
    grow = f"PATCH /api/volumes/{HANDLE}"
    cloud.always[grow] = answer(drop=True)
    with pytest.raises(CloudError):
        spheron.grow_volume(HANDLE, 500)
    assert cloud.asked[-2].body == {"sizeInGb": 500}
    cloud.always[LIST] = answer([volume(sizeInGb=500)])
    spheron.grow_volume(HANDLE, 500)
    cloud.always[grow] = answer({"error": "Provider spheron-es does not support changing a volume"}, 400)
    with pytest.raises(CloudError, match="does not support changing"):
        spheron.grow_volume(HANDLE, 600)
