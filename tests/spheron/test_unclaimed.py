"""The search for instances and volumes of ours that are in no Pulumi state."""

import json

import pytest
from pulumi_vllm.plan.names import physical_name
from pulumi_vllm.spheron.unclaimed import SweepError, known_ids, unclaimed

OURS = physical_name("prod", "machine", "urn")


def test_only_our_live_instances_and_volumes_outside_the_states_are_listed(
    cloud, spheron, *, answer, machine, volume
):
    cloud.always["GET /api/deployments"] = answer(
        [
            machine(id="lost", name=OURS, hourlyRate=2.0),
            machine(id="in state", name=OURS),
            machine(id="terminated", name=OURS, status="terminated"),
            machine(id="of somebody else", name="notebook"),
        ]
    )
    cloud.always["GET /api/volumes"] = answer(
        [
            volume(id="kept", name=OURS, sizeInGb=100, hourlyRate=0.0001),
            volume(id="leaving", name=OURS, status="deleting"),
            volume(id="of somebody else"),
        ]
    )
    found = unclaimed(spheron, {"in state"})
    assert [(row.kind, row.id, row.usd_per_day) for row in found] == [
        ("instance", "lost", 48.0),
        ("volume", "kept", pytest.approx(0.24)),
    ]


def test_ids_are_read_from_exports_and_from_a_backends_folder(tmp_path):
    def resources(*ids):
        return {"resources": [{"type": "vllm:spheron:Instance", "id": one} for one in ids] + [{"type": "x"}]}

    export = tmp_path / "state.json"
    export.write_text(json.dumps({"deployment": resources("a")}))
    backend = tmp_path / "backend"
    stack = backend / ".pulumi" / "stacks" / "project" / "prod.json"
    stack.parent.mkdir(parents=True)
    stack.write_text(json.dumps({"checkpoint": {"latest": resources("b", "c")}}))
    assert known_ids([export, backend]) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "message"), [(None, "not found"), ("{", "cannot be read as a state"), ("{}", "not a state")]
)
def test_a_path_without_a_state_is_an_error(tmp_path, text, message):
    file = tmp_path / "state.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SweepError, match=message):
        known_ids([file])
