"""A volume against the local cloud: its previews, and its growth."""

import dataclasses

import pytest
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.plugin.resource import Kind
from pulumi_vllm.provider.resources.volume import Volume
from pulumi_vllm.spheron.errors import UnauthorizedError

NEW = {"sizeGb": 10, "gpu": "CPU", "count": 0, "region": "Finland 3"}
USD_PER_GB = 0.000109  # of data-crunch on the local cloud


@pytest.mark.parametrize("unknown", ["sizeGb", "gpu", "count", "region", "maxUsdPerHour"])
async def test_a_preview_with_an_unknown_input_has_no_price(call, unknown):
    assert (await Volume().preview(call[0], NEW))["usdPerHour"] == pytest.approx(10 * USD_PER_GB)
    found = await Volume().preview(call[0], {**NEW, unknown: UNKNOWN})
    assert found == {"volumeName": found["volumeName"], "usdPerHour": None}


@pytest.mark.parametrize("unknown", ["sizeGb", "region"])
async def test_a_preview_adopts_an_existing_volume_despite_unknown_inputs(call, unknown):
    _, made = await Volume().create(call[0], NEW)
    assert (await Volume().preview(call[0], {**NEW, unknown: UNKNOWN}))["handle"] == made["handle"]


async def test_a_preview_of_growth_has_the_new_price(call):
    _, made = await Volume().create(call[0], NEW)
    old = {**NEW, **made}
    for size, price in ((25, pytest.approx(25 * USD_PER_GB)), (UNKNOWN, None)):
        assert await Volume().preview_update(call[0], old, {**NEW, "sizeGb": size}) == {"usdPerHour": price}
    assert await Volume().preview_update(call[0], old, {**NEW, "keep": False}) == {}


async def test_only_a_refused_growth_suggests_a_new_volume(call):
    _, made = await Volume().create(call[0], NEW)
    grow = (call[0], "id", {**NEW, **made}, {**NEW, "sizeGb": 25})
    with pytest.raises(UserError, match="keeps its 10 GB and its content; set the size back, or move"):
        await Volume().update(*grow)
    session = call[0].session
    session.cloud().close()
    session._cloud, session.config = None, session.config | {"spheronApiKey": "sai_pk_another"}
    with pytest.raises(UnauthorizedError):
        await Volume().update(*grow)


def of(call, urn):
    """Return the same session's request for another resource."""
    return dataclasses.replace(call, urn=urn)


OWN = "urn:pulumi:s::p::vllm:index:Server$vllm:spheron:Volume::llm-volume"


async def test_a_volume_keeps_its_name_under_another_parent(call):
    made = [
        (await Volume().create(of(call[0], urn), NEW))[0]
        for urn in (OWN, OWN.replace("vllm:index:Server", "acme:Team$vllm:index:Server"))
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("verb", ["preview", "create"])
async def test_a_new_volume_names_the_unused_one_of_an_earlier_stack_name(call, verb):
    renamed = of(call[0], OWN.replace(":s::", ":production::"))
    old_id, old = await Volume().create(of(call[0], OWN), NEW)
    await Volume().create(of(call[0], OWN.replace("llm-volume", "other")), NEW)
    await getattr(Volume(), verb)(renamed, NEW)
    (warning,) = [line for line in call[1] if "lies unused" in line]
    name = old["volumeName"]
    assert warning.startswith(f"the volume {name} (10 GB in Finland 3, $0.03 per day) lies unused")
    assert f"`server.volume: {name}` in the stack file" in warning

    adopted = {**NEW, "existingName": name}
    assert (await Volume().preview(renamed, adopted))["volumeName"] == name
    assert (await Volume().create(renamed, adopted))[0] == old_id
    assert [line for line in call[1] if f"adopted the volume {name}" in line]


async def test_a_volume_of_a_live_instance_is_not_unused(cloud, call):
    _, old = await Volume().create(of(call[0], OWN), NEW)
    machine = cloud.running()
    call[0].session.cloud().volumes.attach(old["handle"], machine)
    await Volume().preview(of(call[0], OWN.replace(":s::", ":production::")), NEW)
    assert not [line for line in call[1] if "lies unused" in line]


async def test_a_missing_existing_volume_is_an_error_and_none_is_created(call):
    for verb in (Volume().preview, Volume().create):
        with pytest.raises(UserError, match="the cloud lists no volume gone; `pulumi-vllm sweep` lists"):
            await verb(call[0], {**NEW, "existingName": "gone"})
    assert call[0].session.cloud().volumes.list() == ()


async def test_another_volume_is_taken_only_by_a_replacement(call):
    _, made = await Volume().create(call[0], NEW)
    old = {**NEW, **made}
    same, other = {**NEW, "existingName": made["volumeName"]}, {**NEW, "existingName": "other"}
    assert await Volume().preview_update(call[0], old, same) == {}
    assert await Volume().update(call[0], "id", old, same) == made
    for refused in (Volume().preview_update(call[0], old, other), Volume().update(call[0], "i", old, other)):
        with pytest.raises(UserError, match=f"`pulumi up --replace '{call[0].urn}'`"):
            await refused


@pytest.mark.parametrize(
    ("urn", "more", "warned"),
    [
        (OWN.replace(":s::", ":production::"), {}, True),
        (OWN.replace("llm-volume", "llm-disk"), {}, True),
        (OWN, {}, False),
        (OWN.replace("vllm:index:Server", "acme:Team$vllm:index:Server"), {}, False),
        (OWN.replace(":s::", ":production::"), {"keep": False}, False),
        (OWN.replace(":s::", ":production::"), {"existingName": True}, False),
    ],
    ids=["stack-renamed", "resource-renamed", "same", "other-parent", "not-kept", "named-in-the-stack-file"],
)
async def test_a_volume_that_a_later_create_would_not_find_is_named_in_time(call, urn, more, warned):
    volume_id, made = await Volume().create(of(call[0], OWN), NEW)
    inputs = NEW | more | ({"existingName": made["volumeName"]} if "existingName" in more else {})
    reading = await Volume().read(of(call[0], urn), volume_id, {**NEW, **made}, inputs)
    assert reading.outputs["handle"] == made["handle"]
    lines = [
        line for line in call[1] if f"Set `server.volume: {made['volumeName']}` in the stack file" in line
    ]
    assert len(lines) == warned


async def test_a_renamed_stack_does_not_lose_its_volume(call):
    _, made = await Volume().create(of(call[0], OWN), NEW)
    state, renamed = {**NEW, **made, "keep": True}, of(call[0], OWN.replace(":s::", ":production::"))
    name = made["volumeName"]
    await Volume().delete(of(call[0], OWN), "id", state)
    (kept,) = (line for line in call[1] if line.startswith("kept the volume"))
    assert f"`pulumi-vllm sweep --delete --volumes {name}` deletes it" in kept
    with pytest.raises(UserError, match=f"the volume {name} is kept.* stays in the state") as refused:
        await Volume().delete(renamed, "id", state)
    assert f"`pulumi state delete '{renamed.urn}'`" in str(refused.value)
    await Volume().delete(renamed, "id", state | {"existingName": name})


def test_another_machine_replaces_the_volume_only_where_machines_overlap():
    old = {"sizeGb": 10, "gpu": "H100", "count": 1, "billing": "spot"}
    new = old | {"gpu": "H200"}
    volume = Volume()
    assert volume.compare(old, new) == {"gpu": Kind.UPDATE}
    assert volume.compare(old, new | {"overlap": True}) == {"gpu": Kind.REPLACE}
    # After the update the state knows the machine, and asking for an overlap replaces nothing.
    assert volume.compare(new, new | {"overlap": True}) == {}
    assert volume.compare(old, new, ("gpu",)) == {}
    imported = {"sizeGb": 10}
    assert volume.compare(imported, new | {"overlap": True}) == {}
