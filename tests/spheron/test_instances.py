"""Instances: found by name, never wrongly taken for gone, terminated once."""

from __future__ import annotations

import pytest
from pulumi_vllm.spheron.errors import CloudError, TooEarlyError, UnknownStatusError

LIST = "GET /api/deployments"
NAME = "ms4-prod-7f3a91"


@pytest.mark.parametrize(
    "wrap", [lambda items: items, lambda items: {"deployments": items}, lambda items: {"data": items}]
)
def test_find_ignores_terminated_instances_and_sends_the_team(cloud, spheron, *, answer, machine, team, wrap):
    ended = [machine(id=status, status=status) for status in ("terminated", "terminated-provider", "failed")]
    cloud.always[LIST] = answer(wrap([*ended, machine(), machine(id="other", name="other")]))
    assert spheron.instances.find(NAME).id == "66f0c0ffee0000000000c001"
    assert cloud.requests[-1].query["teamId"] == [team]
    cloud.always[LIST] = answer(wrap(ended))
    assert spheron.instances.find(NAME) is None


def test_two_live_instances_of_one_name_are_an_error(cloud, spheron, answer, machine):
    cloud.always[LIST] = answer([machine(id="a"), machine(id="b")])
    with pytest.raises(CloudError, match=r"2 live instances have this name \(a, b\)"):
        spheron.instances.find(NAME)


def test_all_pages_are_read(cloud, spheron, answer, machine):
    pages = [{"deployments": [machine(id=f"{page}")], "totalPages": 3} for page in (1, 2, 3)]
    cloud.once(LIST, *[answer(page) for page in pages])
    assert [found.id for found in spheron.instances.list()] == ["1", "2", "3"]


def test_an_unknown_status_is_an_error(cloud, spheron, answer, machine):
    cloud.always["GET /api/deployments/m1"] = answer(machine(status="hibernating"))
    with pytest.raises(UnknownStatusError, match="'hibernating'"):
        spheron.instances.get("m1")


def test_404_is_none_where_the_list_agrees_and_ids_are_encoded(cloud, spheron, answer, machine):
    cloud.always[LIST] = answer([machine()])
    assert spheron.instances.get("a/b c::d") is None
    assert "/api/deployments/a%2Fb%20c%3A%3Ad" in [one.path for one in cloud.requests]


@pytest.mark.parametrize(("status", "code"), [(200, None), (500, 500), (404, 404)])
def test_404_is_not_believed_while_the_list_may_have_the_instance(
    cloud, spheron, *, answer, machine, status, code
):
    cloud.always[LIST] = answer([machine(id="m1")], status)
    if code is None:
        assert spheron.instances.get("m1").status == "running"
    else:
        with pytest.raises(CloudError) as caught:
            spheron.instances.get("m1")
        assert caught.value.status == code


@pytest.mark.parametrize(
    ("fields", "user", "port"),
    [
        ({}, None, 22),
        ({"sshCommand": "ssh ubuntu@192.0.2.7"}, "ubuntu", 22),
        ({"sshCommand": "ssh -p 2222 root@192.0.2.7"}, "root", 2222),
        ({"user": "me", "sshPort": 2200, "sshCommand": "ssh ubuntu@192.0.2.7"}, "me", 2200),
    ],
)
def test_user_and_port_come_from_fields_or_the_ssh_command(
    cloud, spheron, *, answer, machine, fields, user, port
):
    cloud.always["GET /api/deployments/m1"] = answer(machine(**fields))
    found = spheron.instances.get("m1")
    assert (found.user, found.port) == (user, port)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, None),
        (200, {"message": "Instance destruction initiated"}),
        (404, {"error": "Not found"}),
        (400, {"error": "Cannot terminate instance", "currentStatus": "terminated", "canTerminate": False}),
        (
            400,
            {
                "error": "Cannot terminate instance",
                "currentStatus": "terminated-provider",
                "canTerminate": False,
            },
        ),
    ],
)
def test_an_instance_that_has_ended_counts_as_terminated(cloud, spheron, answer, status, body):
    cloud.always["DELETE /api/deployments/m1"] = answer(body, status)
    spheron.instances.terminate("m1")


def test_a_delete_with_a_lost_answer_is_sent_again(cloud, spheron, answer):
    gone = answer({"currentStatus": "terminated", "canTerminate": False}, 400)
    cloud.once("DELETE /api/deployments/m1", answer(drop=True), gone)
    spheron.instances.terminate("m1")


def test_a_refusal_before_the_minimum_run_time_has_the_minutes_left(cloud, spheron, answer):
    body = {
        "error": "Minimum runtime not met",
        "message": "Instance must run for at least 20 minutes. Time remaining: 13 minutes.",
        "canTerminate": False,
        "timeRemaining": 13,
        "minimumRuntime": 20,
    }
    cloud.always["DELETE /api/deployments/m1"] = answer(body, 400)
    with pytest.raises(TooEarlyError, match="ends in 13 min") as caught:
        spheron.instances.terminate("m1")
    assert caught.value.remaining_min == 13
    assert cloud.count("DELETE /api/deployments/m1") == 1


def test_can_terminate_reads_the_answer_and_defaults_to_yes(cloud, spheron, answer):
    path = "GET /api/deployments/m1/can-terminate"
    cloud.once(
        path, answer({"canTerminate": False, "timeRemaining": 3, "minimumRuntime": 20, "reason": "too young"})
    )
    found = spheron.instances.can_terminate("m1")
    assert (found.allowed, found.remaining_min, found.minimum_min) == (False, 3, 20)
    cloud.once(path, answer({"canTerminate": True, "timeRemaining": 0, "minimumRuntime": 20}))
    assert spheron.instances.can_terminate("m1").allowed
    cloud.once(path, answer({"canTerminate": False, "reason": "Instance has already been terminated."}))
    assert spheron.instances.can_terminate("m1").allowed  # or a wait for its minutes would never end
    cloud.always[path] = answer({"error": "broken"}, 500)
    assert spheron.instances.can_terminate("m1").allowed  # the DELETE refuses when it has to
    cloud.always[path] = answer({"error": "key"}, 401)
    with pytest.raises(CloudError):
        spheron.instances.can_terminate("m1")
