"""Machines that are there: found by name, never lost over a word nobody knows, and ended once."""

from __future__ import annotations

import pytest
from pulumi_vllm.spheron.errors import CloudError, TooEarly, UnknownStatus

LIST = "GET /api/deployments"
NAME = "ms4-prod-7f3a91"


@pytest.mark.parametrize(
    "wrap", [lambda items: items, lambda items: {"deployments": items}, lambda items: {"data": items}]
)
def test_find_ignores_ended_machines_and_asks_for_the_team(cloud, spheron, *, answer, machine, team, wrap):
    ended = [machine(id=status, status=status) for status in ("terminated", "terminated-provider", "failed")]
    cloud.always[LIST] = answer(wrap([*ended, machine(), machine(id="other", name="other")]))
    assert spheron.find_instance(NAME).id == "66f0c0ffee0000000000c001"
    assert cloud.asked[-1].query["teamId"] == [team]
    cloud.always[LIST] = answer(wrap(ended))
    assert spheron.find_instance(NAME) is None


def test_two_live_machines_of_one_name_are_for_a_person(cloud, spheron, answer, machine):
    cloud.always[LIST] = answer([machine(id="a"), machine(id="b")])
    with pytest.raises(CloudError, match=r"2 live machines have this name \(a, b\)"):
        spheron.find_instance(NAME)


def test_all_pages_are_read(cloud, spheron, answer, machine):
    pages = [{"deployments": [machine(id=f"{page}")], "totalPages": 3} for page in (1, 2, 3)]
    cloud.once(LIST, *[answer(page) for page in pages])
    assert [found.id for found in spheron.instances()] == ["1", "2", "3"]


def test_an_unknown_status_is_an_error_and_the_machine_is_not_gone(cloud, spheron, answer, machine):
    cloud.always["GET /api/deployments/m1"] = answer(machine(status="hibernating"))
    with pytest.raises(UnknownStatus, match="'hibernating'"):
        spheron.instance("m1")


def test_404_is_none_where_the_list_agrees_and_ids_are_encoded(cloud, spheron, answer, machine):
    cloud.always[LIST] = answer([machine()])
    assert spheron.instance("a/b c::d") is None
    assert "/api/deployments/a%2Fb%20c%3A%3Ad" in [one.path for one in cloud.asked]


@pytest.mark.parametrize(("status", "code"), [(200, None), (500, 500), (404, 404)])
def test_404_of_a_machine_that_is_listed_or_may_be_is_not_gone(
    cloud, spheron, *, answer, machine, status, code
):
    cloud.always[LIST] = answer([machine(id="m1")], status)
    if code is None:
        assert spheron.instance("m1").status == "running"
    else:
        with pytest.raises(CloudError) as caught:
            spheron.instance("m1")
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
def test_the_login_is_found_where_it_is(cloud, spheron, *, answer, machine, fields, user, port):
    cloud.always["GET /api/deployments/m1"] = answer(machine(**fields))
    found = spheron.instance("m1")
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
def test_ended_is_ended(cloud, spheron, answer, status, body):
    cloud.always["DELETE /api/deployments/m1"] = answer(body, status)
    spheron.terminate("m1")


def test_a_delete_whose_answer_is_lost_is_sent_again(cloud, spheron, answer):
    gone = answer({"currentStatus": "terminated", "canTerminate": False}, 400)
    cloud.once("DELETE /api/deployments/m1", answer(drop=True), gone)
    spheron.terminate("m1")


def test_too_early_says_how_long(cloud, spheron, answer):
    body = {
        "error": "Minimum runtime not met",
        "message": "Instance must run for at least 20 minutes. Time remaining: 13 minutes.",
        "canTerminate": False,
        "timeRemaining": 13,
        "minimumRuntime": 20,
    }
    cloud.always["DELETE /api/deployments/m1"] = answer(body, 400)
    with pytest.raises(TooEarly, match="ends in 13 min") as caught:
        spheron.terminate("m1")
    assert caught.value.remaining_min == 13
    assert cloud.count("DELETE /api/deployments/m1") == 1


def test_can_terminate(cloud, spheron, answer):
    path = "GET /api/deployments/m1/can-terminate"
    cloud.once(
        path, answer({"canTerminate": False, "timeRemaining": 3, "minimumRuntime": 20, "reason": "too young"})
    )
    found = spheron.can_terminate("m1")
    assert (found.can, found.remaining_min, found.minimum_min, found.reason) == (False, 3, 20, "too young")
    cloud.once(path, answer({"canTerminate": True, "timeRemaining": 0, "minimumRuntime": 20}))
    assert spheron.can_terminate("m1").can
    cloud.once(path, answer({"canTerminate": False, "reason": "Instance has already been terminated."}))
    assert spheron.can_terminate("m1").can  # or a wait for its minutes would never end
    cloud.always[path] = answer({"error": "broken"}, 500)
    assert spheron.can_terminate("m1").can  # the DELETE refuses when it has to
    cloud.always[path] = answer({"error": "key"}, 401)
    with pytest.raises(CloudError):
        spheron.can_terminate("m1")


def test_rename_reads_back_what_was_lost(cloud, spheron, answer, machine):
    cloud.always["PATCH /api/deployments/m1"] = answer(drop=True)
    cloud.always["GET /api/deployments/m1"] = answer(machine(name="new-name"))
    spheron.rename("m1", "new-name")
    with pytest.raises(CloudError, match="the connection was lost"):
        spheron.rename("m1", "another")
