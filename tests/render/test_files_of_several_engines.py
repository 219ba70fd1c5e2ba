"""Files of a host with several engines: each has its own cards, port, caches and share of the memory."""

import json
import re

import pytest
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import layout, render
from pulumi_vllm.render.engine_places import engine_places, engine_units

import stacks


def files(stack="spheron-h100-4x-fp8", **machine):
    block = stacks.planned(stack).deployment.model_dump(by_alias=True, exclude_none=True)
    block["machine"] |= machine
    return {file.path: file for file in render(plan(Deployment.parse(block)))}


def environment(found, number):
    lines = found[f"/etc/pulumi-vllm/vllm-{number}.env"].text.splitlines()
    return dict(line.split("=", 1) for line in lines if line[0] != "#")


def test_each_engine_has_a_group_of_cards_and_its_own_caches():
    found = files(engines=2)
    variables = [environment(found, number) for number in (0, 1)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in variables] == ["0,1", "2,3"]
    unit = found[layout.unit_file(layout.ENGINE_TEMPLATE)].text
    assert "--tensor-parallel-size 2" in unit
    assert "--port 800%i" in unit
    assert "MemoryMax=45%" in unit
    for number, one in enumerate(variables):
        own = {value for value in one.values() if value.startswith("/models/cache/")}
        assert own
        assert all(re.match(rf"/models/cache/[^/]+/engine-{number}(/|$)", value) for value in own)


def test_ports_differ_in_their_last_digit_in_decimal_and_hexadecimal():
    """The unit writes %i for that digit."""
    ports = [place.port for place in engine_places(layout.MOST_ENGINES)]
    assert [f"{port}" for port in ports] == [f"800{number}" for number in range(8)]
    assert [f"{port:04X}" for port in ports] == [f"1F4{number}" for number in range(8)]
    assert layout.ENGINE_IN_PROC_NET_TCP.endswith(":1F40")


@pytest.mark.parametrize("engines", [1, 2, 4])
def test_every_engine_is_in_every_list(engines):
    found = files("spheron-h100-2x-nvfp4", count=4, engines=engines)
    gateway = found[layout.HAPROXY_CONFIG].text
    places = engine_places(engines)
    servers = re.findall(r"^    server (\S+) (\S+) .* maxconn (\d+)\b", gateway, re.MULTILINE)
    assert servers == [(one.server, f"127.0.0.1:{one.port}", str(256 // engines)) for one in places]
    after = re.search(r"^After=(.*)$", found[layout.unit_file(layout.READINESS_UNIT)].text, re.MULTILINE)
    assert set(engine_units(engines)) <= set(after[1].split())
    for one in places:
        canary = json.loads(found[one.canary_config].text)
        assert (canary["engine_url"], canary["unit"], canary["result"]) == (
            one.url,
            one.unit,
            one.canary_result,
        )
    assert (layout.CONVERSATION in found) == (engines > 1)
    assert len([path for path in found if path.endswith(".env")]) == engines
