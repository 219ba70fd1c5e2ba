"""Machines: rented at most once, adopted when the answer was lost, never lost over a word nobody knows."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from pulumi_vllm.cloud.errors import Ambiguous, CloudError, OutOfStock, RateLimited, TooEarly, UnknownStatus
from pulumi_vllm.cloud.models import CreateInstance
from pulumi_vllm.cloud.spheron import Spheron

POST = "POST /api/deployments"
LIST = "GET /api/deployments"
NAME = "ms4-prod-7f3a91"


@pytest.fixture
def wish(offers):
    return CreateInstance(NAME, offers({})[0], "US Central 1", "Ubuntu 24.04 (CUDA 13)", "key1")


def test_the_body_comes_from_one_offer(cloud, spheron, *, answer, machine, wish, team):
    cloud.always[POST] = answer(machine(status="deploying"), 201)
    made = spheron.create_instance(
        dataclasses.replace(wish, region="us central 1", cloud_init={"runcmd": ["a"]})
    )
    assert (made.id, made.status, made.port, made.user) == ("66f0c0ffee0000000000c001", "deploying", 22, None)
    assert cloud.asked[-1].body == {
        "name": NAME,
        "provider": "spheron-es",
        "offerId": "offer 0",
        "gpuType": "H200_SXM5",
        "gpuCount": 1,
        "region": "US Central 1",
        "operatingSystem": "Ubuntu 24.04 (CUDA 13)",
        "instanceType": "DEDICATED",
        "sshKeyId": "key1",
        "teamId": team,
        "cloudInit": {"runcmd": ["a"]},
    }


@pytest.mark.parametrize("wrapper", ["deployment", "data"])
def test_wrapped_answers_are_unwrapped(cloud, spheron, *, answer, machine, wish, wrapper):
    cloud.always[POST] = answer({wrapper: machine()})
    assert spheron.create_instance(wish).name == NAME


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "x"}, "3 to 45"),
        ({"name": "X" * 10}, "3 to 45"),
        ({"name": "a" * 46}, "3 to 45"),
        ({"region": "Mars 1"}, "it is in US Central 1"),
        ({"operating_system": "Plan 9"}, "has no 'Plan 9'"),
    ],
)
def test_a_wish_that_can_not_be_met_is_never_sent(cloud, spheron, wish, change, words):
    with pytest.raises(CloudError, match=words):
        spheron.create_instance(dataclasses.replace(wish, **change))
    assert not cloud.asked


def test_too_little_money_is_said_before_the_post(cloud, spheron, answer, wish, team):
    cloud.always["GET /api/balance"] = answer({"teams": [{"teamId": team, "balance": 2.5}]})
    with pytest.raises(CloudError, match=r"has \$2.50, and this machine wants \$4.72; add credit"):
        spheron.create_instance(wish)
    assert cloud.count(POST) == 0


@pytest.mark.parametrize("bad", ["drop", "500", "502 html", "html", "malformed", "empty", "no id"])
def test_a_lost_answer_is_looked_up_and_the_machine_adopted(cloud, spheron, *, answer, machine, wish, bad):
    def act():
        cloud.always[LIST] = answer([machine(status="terminated", id="old"), machine(status="deploying")])

    cloud.always[POST] = {
        "drop": answer(drop=True, act=act),
        "500": answer({"error": "boom"}, 500, act=act),
        "502 html": answer(status=502, text="<html>", act=act),
        "html": answer(text="<html>", act=act),
        "malformed": answer(text='{"id": "66', act=act),
        "empty": answer(act=act),
        "no id": answer({"ok": True}, act=act),
    }[bad]
    assert spheron.create_instance(wish).id == "66f0c0ffee0000000000c001"
    assert cloud.count(POST) == 1


def test_a_machine_that_shows_up_late_is_adopted(cloud, spheron, answer, machine, wish):
    cloud.always[POST] = answer(drop=True)
    cloud.once(LIST, answer([]), answer([]), answer([machine(status="never heard")]))
    assert spheron.create_instance(wish).status == "never heard"


@pytest.mark.parametrize("listing", ["empty", "broken"])
def test_nobody_knows_is_ambiguous_after_some_time(cloud, spheron, *, answer, clock, wish, listing):
    cloud.always[POST] = answer(drop=True)
    if listing == "broken":
        spheron.lookup_s = 20.0
        cloud.always[LIST] = answer({"error": "x"}, 500)
    with pytest.raises(Ambiguous, match="it may still appear and bill") as caught:
        spheron.create_instance(wish)
    assert caught.value.name == NAME
    assert spheron.lookup_s <= sum(clock.slept) <= 100
    assert cloud.count(POST) == 1


def test_a_timeout_is_as_ambiguous_as_a_lost_connection(cloud, answer, machine, wish, key):
    gate = threading.Event()

    def act():
        cloud.always[LIST] = answer([machine()])
        gate.wait(5)

    cloud.always[POST] = answer(machine(id="late"), act=act)
    client = Spheron(cloud.url, key, timeouts_s={"POST": 0.2})
    assert client.create_instance(wish).id == "66f0c0ffee0000000000c001"
    gate.set()
    client.close()


@pytest.mark.parametrize(
    "text",
    [
        "Not Enough Stock of RTX-A4000. Unable to launch virtual-machines.",
        "400 Bad Request - insufficient capacity",
        "sold out",
        "offer offer 0 not found",
    ],
)
def test_no_stock_has_its_own_error_and_looks_nothing_up(cloud, spheron, answer, wish, text):
    cloud.always[POST] = answer({"error": text}, 400)
    with pytest.raises(OutOfStock, match="take another offer"):
        spheron.create_instance(wish)
    assert cloud.count(LIST) == 0


def test_an_offer_that_vanished_is_out_of_stock(cloud, spheron, wish):
    with pytest.raises(OutOfStock):
        spheron.create_instance(wish)
    assert cloud.count(POST) == 1


def test_no_stock_with_a_500_is_looked_up_and_then_said(cloud, spheron, answer, wish):
    cloud.always[POST] = answer({"error": "Not enough stock"}, 500)
    with pytest.raises(OutOfStock):
        spheron.create_instance(wish)
    assert cloud.count(LIST) > 1


def test_a_refused_post_is_sent_again_only_on_429(cloud, spheron, answer, machine, wish):
    cloud.once(POST, answer({}, 429, {"Retry-After": "1"}), answer(machine()))
    spheron.create_instance(wish)
    assert cloud.count(POST) == 2
    cloud.always[POST] = answer({"retryAfter": 700}, 429)
    with pytest.raises(RateLimited):
        spheron.create_instance(wish)


def test_nothing_sent_is_not_ambiguous(cloud, spheron, wish, monkeypatch):
    spheron.team_id()
    monkeypatch.setattr(spheron, "balance", lambda: 50.0)
    monkeypatch.setattr(spheron.http, "_url", "http://127.0.0.1:9")
    with pytest.raises(CloudError, match="can't be reached") as caught:
        spheron.create_instance(wish)
    assert not isinstance(caught.value, Ambiguous)


def test_a_loop_that_rents_is_stopped(cloud, spheron, answer, machine, wish):
    cloud.always[POST] = answer(machine())
    for _ in range(8):
        spheron.create_instance(wish)
    with pytest.raises(CloudError, match="looks like a loop"):
        spheron.create_instance(wish)
    assert cloud.count(POST) == 8


# -- looking -------------------------------------------------------------------------------------------------


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


# -- ending --------------------------------------------------------------------------------------------------


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


# -- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["drop", "400", "409"])
def test_an_ssh_key_that_is_there_already_is_found(cloud, spheron, answer, bad):
    cloud.always["POST /api/ssh-keys"] = {
        "drop": answer(drop=True),
        "400": answer({"error": "duplicate"}, 400),
        "409": answer({"error": "duplicate"}, 409),
    }[bad]
    cloud.always["GET /api/ssh-keys"] = answer(
        {"sshKeys": [{"id": "k0", "name": "else"}, {"id": "k1", "name": "mine"}]}
    )
    cloud.always["GET /api/ssh-keys/k1"] = answer({"id": "k1", "publicKey": "ssh-ed25519 AAAA somebody"})
    assert spheron.create_ssh_key("mine", "ssh-ed25519 AAAA me").id == "k1"
    with pytest.raises(CloudError):
        spheron.create_ssh_key("mine", "ssh-ed25519 BBBB me")


def test_ssh_keys_come_and_go(cloud, spheron, answer, team):
    cloud.always["POST /api/ssh-keys"] = answer({"id": "k1"}, 201)
    made = spheron.create_ssh_key("mine", "ssh-ed25519 AAAA")
    assert (made.id, made.name, made.public_key) == ("k1", "mine", "ssh-ed25519 AAAA")
    assert cloud.asked[-1].body["teamId"] == team
    cloud.always["DELETE /api/ssh-keys/k1"] = answer()
    spheron.delete_ssh_key("k1")
    spheron.delete_ssh_key("unknown")
