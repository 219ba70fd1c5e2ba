"""What the service of a host compares: its own engines, though a probe has those that were declared before."""

import pytest
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.provider.resources import service
from pulumi_vllm.render.engine_places import engine_units


def engine(state="active"):
    enabled = "enabled" if state == "active" else "disabled"
    return {"ActiveState": state, "LoadState": "loaded", "UnitFileState": enabled}


def subjects(engines, running):
    units = {
        unit: engine("active" if number < running else "inactive")
        for number, unit in enumerate(engine_units(4))
    }
    on_host = engine_units(max(2, running))[:running]
    facts = Facts.parse({"probe": 1, "units": units, "engine_units": list(on_host)})
    found = service._differences_in(facts, {}, {"servingDigest": "", "engines": engines})
    return [one.subject for one in found if "vllm@" in one.subject]


@pytest.mark.parametrize(
    ("engines", "running", "differ"),
    [
        (4, 4, []),
        (2, 2, []),
        (4, 2, ["vllm@2.service at boot", "vllm@3.service at boot"]),
        (2, 3, ["vllm@2.service"]),
    ],
)
def test_engines_that_are_no_longer_declared_are_missed_by_nobody(engines, running, differ):
    assert subjects(engines, running) == differ
