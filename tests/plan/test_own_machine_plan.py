"""A machine that somebody else made: what the stack file says, what it can't say, and what the plan makes of it."""

import pytest
from pulumi_vllm.plan import Deployment, PlanError, explain, plan
from pulumi_vllm.plan.alternatives import cheaper_alternative
from pulumi_vllm.plan.catalogue import CPU

OWN = {"cloud": "none", "gpu": "H100", "count": 2, "usd_per_hour": 6.0}


def own(machine: dict | None = None, **changes: object) -> dict:
    block = {
        "model": "mistral-small-4",
        "context": "32Ki",
        "machine": OWN | (machine or {}),
        "storage": {"path": "/data/llm"},
    }
    return block | changes


def errors(block: dict) -> tuple[str, ...]:
    with pytest.raises(PlanError) as refusal:
        plan(Deployment.parse(block))
    return refusal.value.errors


def test_its_price_is_what_the_stack_file_says():
    decided = plan(Deployment.parse(own()))
    assert decided.usd_per_hour == 6.0
    assert decided.usd_per_million_output_tokens is not None
    found = explain.summary(decided)
    assert found["billing"] == "own machine"
    assert found["labels"]["usd_per_hour"] == "asked: server.machine.usd_per_hour"
    assert found["storage_usd_per_month"] == 0
    assert any("/data/llm on the machine keeps weights and caches" in line for line in found["because"])
    assert not any("ceiling" in line for line in found["because"])
    assert cheaper_alternative(decided) is None


def test_a_machine_that_costs_nothing():
    decided = plan(Deployment.parse(own({"usd_per_hour": 0})))
    assert decided.usd_per_hour == 0
    assert decided.usd_per_million_output_tokens == 0


def test_what_must_fit_is_checked_as_for_a_rented_machine():
    assert "does not fit" in errors(own({"count": 1}, precision="fp8"))[0]


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"max_usd_per_hour": 9}, "server.machine.max_usd_per_hour: applies to rented machines only"),
        ({"billing": "spot"}, "server.machine.billing: applies to rented machines only"),
        ({"max_usd_per_day": 9}, "server.machine.max_usd_per_day: applies to rented machines only"),
        ({"max_usd_per_month": 9}, "server.machine.max_usd_per_month: applies to rented machines only"),
        ({"spot": {"losses": 2}}, "server.machine.spot: applies to rented machines only"),
        ({"replace": "overlap"}, "server.machine.replace: applies to rented machines only"),
        ({"region": "EU"}, "server.machine.region: applies to rented machines only"),
        ({"keep_failed": True}, "server.machine.keep_failed: applies to rented machines only"),
        ({"usd_per_hour": None}, "server.machine.usd_per_hour: missing; write what an hour"),
        ({"usd_per_hour": -1}, "server.machine.usd_per_hour: -1 is out of range"),
        ({"cloud": "aws"}, "server.machine.cloud: 'aws' is not allowed; write spheron or none"),
    ],
)
def test_keys_of_rented_machines_are_refused(machine, message):
    assert errors(own(machine))[0].startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expires": "8h"}, "server.expires: would power off a machine that this stack did not make"),
        ({"idle_stop": "8h"}, "server.idle_stop: would power off a machine"),
        ({"schedule": {"up": "0 7 * * *", "down": "0 9 * * *"}}, "server.schedule: saves nothing"),
        ({"owner": "ann"}, "server.owner: applies to rented machines only"),
        ({"volume": "kept"}, "server.volume: applies to rented machines only"),
        (
            {"access": {"allow": ["9.9.9.0/24"], "ssh_allow": ["9.9.9.9/32"]}},
            "server.access.ssh_allow: SSH stays as it is",
        ),
        ({"storage": "300GB"}, "server.storage: 300 GB is the size of a volume to rent"),
        ({"storage": {}}, "server.storage: is an empty block; write one of"),
        ({"storage": {"path": "/a", "device": "/dev/b"}}, "server.storage: has the keys path, device"),
        ({"storage": {"path": "data"}}, "server.storage: path 'data' is not a full path"),
        ({"storage": {"path": "/data/../etc"}}, "server.storage: path '/data/../etc' is not a full path"),
        ({"storage": {"path": "/da ta"}}, "server.storage: path '/da ta' is not a full path"),
        (
            {"storage": {"path": "/data/"}},
            "server.storage: path '/data/' is not a full path of letters, digits and ._- without / at",
        ),
        ({"storage": {"path": "/"}}, "server.storage: path '/' is not a full path"),
        ({"storage": {"path": "/etc/models"}}, "server.storage: path '/etc/models' is in /etc"),
        ({"storage": {"path": "/models"}}, "server.storage: path '/models' is in /models"),
        ({"storage": {"device": "/data"}}, "server.storage: device '/data' is not below /dev"),
    ],
)
def test_other_keys_are_refused_with_their_path(changes, message):
    (found,) = errors(own(**changes))
    assert found.startswith(message)


def test_all_of_them_at_once():
    found = errors(own({"region": "EU", "usd_per_hour": None}, expires="8h", storage="1TB"))
    assert [one.partition(":")[0] for one in found] == [
        "server.machine.usd_per_hour", "server.machine.region", "server.storage", "server.expires",
    ]  # fmt: skip


def test_a_rented_machine_has_neither_price_nor_place_of_its_own():
    rented = {"gpu": "H100", "count": 2, "max_usd_per_hour": 9}
    (found,) = errors(own() | {"machine": rented})
    assert (
        found
        == "server.storage: /data/llm is a place on a machine with cloud: none; write a size such as 300GB"
    )
    found = errors(own(storage="300GB") | {"machine": {"gpu": "H100", "count": 2, "usd_per_hour": 9}})
    assert found[0] == "server.machine.max_usd_per_hour: missing; add it"
    assert found[1].endswith("none, and spheron has prices; write max_usd_per_hour")


def test_a_place_that_ends_like_another_one():
    assert Deployment.parse(own(storage={"path": "/models2"})).store.place == "/models2"
    assert Deployment.parse(own(storage={"device": "/dev/nvme1n1"})).store.device == "/dev/nvme1n1"


def test_without_a_gpu():
    block = own({"gpu": CPU, "count": 0}, model="mistral-small-4-tiny", context="2Ki", precision="bf16")
    assert plan(Deployment.parse(block)).memory is None
