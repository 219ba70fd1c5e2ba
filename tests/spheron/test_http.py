"""What goes over the wire, what is tried again, and which sentence comes out when it can't be helped."""

from __future__ import annotations

import threading
import traceback

import pytest
from pulumi_vllm.spheron.budget import CallBudget, SpendGuard
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.errors import CloudError, RateLimited, TooEarly, Unauthorized
from pulumi_vllm.spheron.explain import explain

BALANCE = "GET /api/balance"


def test_every_request_carries_our_agent_and_the_key(cloud, spheron, key):
    assert spheron.balance() == 82.4
    headers = cloud.asked[0].headers
    assert headers["User-Agent"].startswith("pulumi-vllm/")
    assert headers["Authorization"] == f"Bearer {key}"


def test_a_netrc_file_does_not_replace_the_key(cloud, spheron, key, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    spheron.balance()
    assert cloud.asked[0].headers["Authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("trouble", ["drop", "500", "html", "malformed"])
def test_get_survives_passing_trouble(cloud, spheron, answer, trouble):
    bad = {
        "drop": answer(drop=True),
        "500": answer({"error": "boom"}, 500),
        "html": answer(text="<html><title>One moment</title></html>"),
        "malformed": answer(text='{"teams": ['),
    }[trouble]
    cloud.once(BALANCE, bad, bad)
    assert spheron.balance() == 82.4


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            {"text": "<html><title>Just  a moment</title></html>"},
            ["a web page titled 'Just a moment'", "SPHERON_URL"],
        ),
        ({"text": "{]"}, ["something that is no JSON"]),
        ({"drop": True}, ["the connection was lost"]),
        ({"status": 503, "text": "<html>down</html>"}, ["503", "a web page", "cloud's side"]),
        ({"body": "fine"}, ["a string instead of a list"]),
        ({"body": {"what": []}}, ["an object with what"]),
        ({"status": 302, "headers": {"Location": "https://login.example/x"}}, ["sends us to login.example"]),
        ({"status": 401, "body": {"error": "Invalid"}}, ["401: Invalid", "SPHERON_API_KEY"]),
        ({"status": 403, "text": "Forbidden"}, ["403: Forbidden", "pulumi-vllm/"]),
    ],
)
def test_lasting_trouble_is_one_sentence(cloud, spheron, *, answer, clock, bad, words):
    cloud.always[BALANCE] = answer(**bad)
    with pytest.raises(CloudError) as caught:
        spheron.balance()
    for word in ["asking for the balance: ", *words]:
        assert word in str(caught.value)
    assert sum(clock.slept) <= 31


def test_a_refusal_is_not_tried_again(cloud, spheron, answer):
    cloud.always[BALANCE] = answer({"error": "no"}, 401)
    with pytest.raises(Unauthorized):
        spheron.balance()
    assert cloud.count(BALANCE) == 1


def test_nothing_listens_there(cloud, key, clock):
    client = Spheron("http://127.0.0.1:9", key, clock=clock, sleep=clock.sleep)
    with pytest.raises(CloudError, match="can't be reached; check the network and SPHERON_URL") as caught:
        client.balance()
    assert caught.value.acted is False


def test_429_waits_as_told_and_asks_again(cloud, spheron, answer, clock):
    cloud.once(
        BALANCE, answer({}, 429, {"Retry-After": "2"}), answer({"retryAfter": 3}, 429), answer({}, 429)
    )
    assert spheron.balance() == 82.4
    # 2 s and 3 s as told, 5 s where nothing was said, each with some jitter; between them the emptied budget's pace.
    assert clock.slept[::2] == pytest.approx([2.2, 3.3, 5.5], rel=0.1)
    assert clock.slept[1::2] == pytest.approx([1, 1, 1])


def test_a_long_told_wait_is_not_slept_out(cloud, spheron, answer, clock):
    """The server's clock may run faster than ours: it is asked again after some seconds."""
    cloud.once(BALANCE, *[answer({}, 429, {"Retry-After": "900"})] * 3)
    assert spheron.balance() == 82.4
    assert max(clock.slept) <= 6


def test_429_for_good_is_an_error_that_says_how_long(cloud, spheron, answer, clock):
    cloud.always[BALANCE] = answer(
        {"error": "slow down", "code": "RATE_LIMIT_EXCEEDED", "retryAfter": 900}, 429
    )
    with pytest.raises(RateLimited, match="429: slow down") as caught:
        spheron.balance()
    assert caught.value.retry_after_s == 900
    assert sum(clock.slept) <= 33


def test_no_error_shows_the_key(cloud, spheron, answer, key):
    cloud.always[BALANCE] = answer({"error": f"key {key} and sai_pk_anotherKey are wrong"}, 400)
    with pytest.raises(CloudError) as caught:
        spheron.balance()
    shown = "".join(traceback.format_exception(caught.value)) + repr(spheron) + repr(spheron.http)
    assert "key *** and sai_pk_*** are wrong" in str(caught.value)
    assert "anotherKey" not in shown
    assert key not in shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("app.spheron.ai", "not a web address"),
        ("ftp://app.spheron.ai", "not a web address"),
        ("http://app.spheron.ai", "in clear"),
    ],
)
def test_an_url_that_can_not_be_meant(url, words, key):
    with pytest.raises(CloudError, match=words):
        Spheron(url, key)


@pytest.mark.parametrize("key", ["", " ", "sai_pk_a b", "sai_pk_a\n", "sai_pk_ä"])
def test_a_key_that_can_not_be_one(key):
    with pytest.raises(CloudError, match="SPHERON_API_KEY") as caught:
        Spheron("https://app.spheron.ai", key)
    assert not key.strip() or key.strip() not in str(caught.value)


def test_password_in_the_url_is_never_shown(key):
    assert "hunter" not in repr(Spheron("https://me:hunter@app.spheron.ai/api/", key))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "short", "code": "X", "details": {}}, "short"),
        ({"error": "Bad", "message": "Very bad."}, "Bad: Very bad"),
        ({"error": {"message": "nested"}}, "nested"),
        ({"error_message": "older"}, "older"),
        ({"message": ["a", "b"]}, "a, b"),
        ({"message": "Input payload validation failed", "errors": [{"path": "name"}]}, '[{"path": "name"}]'),
        ({"unheard": "of"}, '{"unheard": "of"}'),
        ("400 Bad Request - upstream", "400 Bad Request - upstream"),
        (None, "the cloud answered 400"),
        ([1], "the cloud answered 400"),
        ({"error": "Insufficient balance"}, "add credit"),
    ],
)
def test_every_shape_of_error_body(body, said):
    assert said in str(explain("renting x", 400, body, secret="k" * 9, agent="a"))


def test_the_minimum_run_time_with_and_without_its_numbers():
    bodies = [
        {"error": "Minimum runtime not met", "canTerminate": False, "timeRemaining": 7},
        {"error": "Minimum runtime not met", "message": "at least 20 minutes. Time remaining: 7 minutes."},
    ]
    for body in bodies:
        error = explain("ending m", 400, body, secret="", agent="")
        assert isinstance(error, TooEarly)
        assert error.remaining_min == 7


def test_the_budget_is_fast_first_then_paces_and_never_refuses(clock):
    budget = CallBudget(3, 30.0, slowest_s=2.0, clock=clock)
    assert [budget.take() for _ in range(3)] == [0, 0, 0]
    waits = []
    for _ in range(3):
        waits.append(budget.take())
        clock.sleep(waits[-1])
    assert waits == pytest.approx([2, 2, 2])
    clock.sleep(60)
    assert budget.take() == 0


def test_the_budget_believes_the_server(clock):
    budget = CallBudget(100, 900.0, clock=clock)
    budget.refused()
    assert budget.take() > 0
    budget.healed()
    assert [budget.take() for _ in range(50)] == [0] * 50
    assert budget.take() > 0
    budget.told(50)
    clock.sleep(3)
    assert [budget.take() for _ in range(50)] == [0] * 50
    assert budget.take() > 0


def test_remaining_calls_in_the_headers_are_read(cloud, spheron, answer, clock, team):
    cloud.always[BALANCE] = answer(
        {"teams": [{"teamId": team, "balance": 1}]}, headers={"X-RateLimit-Remaining": "0"}
    )
    spheron.balance()
    spheron.balance()
    assert clock.slept


def test_threads_share_a_client(cloud, spheron):
    found = []
    threads = [threading.Thread(target=lambda: found.append(spheron.balance())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [82.4] * 8


def test_the_guard_stops_a_loop_and_opens_after_an_hour(clock):
    guard = SpendGuard(2, clock=clock)
    for _ in range(2):
        guard.check("m")
        guard.rented()
    with pytest.raises(CloudError, match="2 machines were rented within the hour"):
        guard.check("m")
    clock.sleep(3600)
    guard.check("m")
