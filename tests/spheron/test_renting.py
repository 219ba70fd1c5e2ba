"""Renting: at most one machine, adopted when the answer was lost."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.errors import Ambiguous, CloudError, OutOfStock, RateLimited
from pulumi_vllm.spheron.models import CreateInstance

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
    readiness = threading.Event()

    def act():
        cloud.always[LIST] = answer([machine()])
        readiness.wait(5)

    cloud.always[POST] = answer(machine(id="late"), act=act)
    client = Spheron(cloud.url, key, timeouts_s={"POST": 0.2})
    assert client.create_instance(wish).id == "66f0c0ffee0000000000c001"
    readiness.set()
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
