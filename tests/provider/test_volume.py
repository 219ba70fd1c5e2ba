"""A volume against the local cloud: its previews, and its growth."""

import pytest
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
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
