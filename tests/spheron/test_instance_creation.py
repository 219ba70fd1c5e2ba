"""Creation of an instance: at most one is rented, and it is adopted after a lost answer."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.errors import AmbiguousError, CloudError, OutOfStockError, RateLimitedError
from pulumi_vllm.spheron.models import InstanceRequest

POST = "POST /api/deployments"
LIST = "GET /api/deployments"
NAME = "ms4-prod-7f3a91"


@pytest.fixture
def wanted(offers):
    return InstanceRequest(NAME, offers({})[0], "US Central 1", "Ubuntu 24.04 (CUDA 13)", "key1")


def test_the_body_comes_from_one_offer(cloud, spheron, *, answer, machine, wanted, team):
    cloud.always[POST] = answer(machine(status="deploying"), 201)
    made = spheron.instances.create(
        dataclasses.replace(wanted, region="us central 1", cloud_init={"runcmd": ["a"]})
    )
    assert (made.id, made.status, made.port, made.user) == ("66f0c0ffee0000000000c001", "deploying", 22, None)
    assert cloud.requests[-1].body == {
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
def test_wrapped_answers_are_unwrapped(cloud, spheron, *, answer, machine, wanted, wrapper):
    cloud.always[POST] = answer({wrapper: machine()})
    assert spheron.instances.create(wanted).name == NAME


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
def test_a_request_that_does_not_fit_the_offer_is_never_sent(cloud, spheron, wanted, change, words):
    with pytest.raises(CloudError, match=words):
        spheron.instances.create(dataclasses.replace(wanted, **change))
    assert not cloud.requests


def test_too_little_credit_is_reported_before_the_post(cloud, spheron, answer, wanted, team):
    cloud.always["GET /api/balance"] = answer({"teams": [{"teamId": team, "balance": 2.5}]})
    with pytest.raises(CloudError, match=r"has \$2.50, and this machine needs \$4.72; add credit"):
        spheron.instances.create(wanted)
    assert cloud.count(POST) == 0


@pytest.mark.parametrize("bad", ["drop", "500", "502 html", "html", "malformed", "empty", "no id"])
def test_after_a_lost_answer_the_instance_is_found_and_adopted(
    cloud, spheron, *, answer, machine, wanted, bad
):
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
    assert spheron.instances.create(wanted).id == "66f0c0ffee0000000000c001"
    assert cloud.count(POST) == 1


def test_an_instance_that_is_listed_late_is_adopted(cloud, spheron, answer, machine, wanted):
    cloud.always[POST] = answer(drop=True)
    cloud.once(LIST, answer([]), answer([]), answer([machine(status="never heard")]))
    assert spheron.instances.create(wanted).status == "never heard"


@pytest.mark.parametrize("listing", ["empty", "broken"])
def test_an_instance_that_is_never_listed_is_ambiguous(cloud, key, *, answer, clock, wanted, listing):
    cloud.always[POST] = answer(drop=True)
    if listing == "broken":
        cloud.always[LIST] = answer({"error": "x"}, 500)
    spheron = Spheron(key, url=cloud.url, clock=clock, sleep=clock.sleep, lookup_s=20.0)
    with pytest.raises(AmbiguousError, match=f"renting {NAME}.* it may still appear and bill"):
        spheron.instances.create(wanted)
    spheron.close()
    assert 20 <= sum(clock.slept) <= 100
    assert cloud.count(POST) == 1


def test_a_timeout_is_handled_like_a_lost_connection(cloud, answer, machine, wanted, key):
    late = threading.Event()

    def act():
        cloud.always[LIST] = answer([machine()])
        late.wait(5)

    cloud.always[POST] = answer(machine(id="late"), act=act)
    client = Spheron(key, url=cloud.url, timeouts_s={"POST": 0.2})
    assert client.instances.create(wanted).id == "66f0c0ffee0000000000c001"
    late.set()
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
def test_out_of_stock_has_its_own_error_without_a_lookup(cloud, spheron, answer, wanted, text):
    cloud.always[POST] = answer({"error": text}, 400)
    with pytest.raises(OutOfStockError, match="take another offer"):
        spheron.instances.create(wanted)
    assert cloud.count(LIST) == 0


def test_an_offer_that_is_no_longer_known_is_out_of_stock(cloud, spheron, wanted):
    with pytest.raises(OutOfStockError):
        spheron.instances.create(wanted)
    assert cloud.count(POST) == 1


def test_out_of_stock_with_a_500_is_looked_up_first(cloud, spheron, answer, wanted):
    cloud.always[POST] = answer({"error": "Not enough stock"}, 500)
    with pytest.raises(OutOfStockError):
        spheron.instances.create(wanted)
    assert cloud.count(LIST) > 1


def test_a_refused_post_is_sent_again_only_on_429(cloud, spheron, answer, machine, wanted):
    cloud.once(POST, answer({}, 429, {"Retry-After": "1"}), answer(machine()))
    spheron.instances.create(wanted)
    assert cloud.count(POST) == 2
    cloud.always[POST] = answer({"retryAfter": 700}, 429)
    with pytest.raises(RateLimitedError):
        spheron.instances.create(wanted)


def test_a_request_that_was_never_sent_is_not_ambiguous(cloud, spheron, wanted, monkeypatch):
    spheron.account.team_id()
    monkeypatch.setattr(spheron.account, "balance_usd", lambda: 50.0)
    monkeypatch.setattr(spheron.transport, "_url", "http://127.0.0.1:9")
    with pytest.raises(CloudError, match="can't be reached") as caught:
        spheron.instances.create(wanted)
    assert not isinstance(caught.value, AmbiguousError)


def test_a_loop_that_rents_instances_is_stopped(cloud, spheron, answer, machine, wanted):
    cloud.always[POST] = answer(machine())
    for _ in range(8):
        spheron.instances.create(wanted)
    with pytest.raises(CloudError, match="looks like a loop"):
        spheron.instances.create(wanted)
    assert cloud.count(POST) == 8
