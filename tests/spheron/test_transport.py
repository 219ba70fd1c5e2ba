"""The transport: headers, repeated calls, and the error messages of what cannot be repeated."""

from __future__ import annotations

import threading
import traceback

import pytest
from pulumi_vllm.spheron.api_address import FROM_ENVIRONMENT
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.error_responses import error_from_response
from pulumi_vllm.spheron.errors import CloudError, RateLimitedError, TooEarlyError, UnauthorizedError
from pulumi_vllm.spheron.rate_limiter import RateLimiter
from pulumi_vllm.spheron.rental_limit import RentalLimit

BALANCE = "GET /api/balance"


def test_every_request_carries_our_agent_and_the_key(cloud, spheron, key):
    assert spheron.account.balance_usd() == 82.4
    headers = cloud.requests[0].headers
    assert headers["User-Agent"].startswith("pulumi-vllm/")
    assert headers["Authorization"] == f"Bearer {key}"


def test_a_netrc_file_does_not_replace_the_key(cloud, spheron, key, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    spheron.account.balance_usd()
    assert cloud.requests[0].headers["Authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("trouble", ["drop", "500", "html", "malformed"])
def test_a_get_is_repeated_after_a_transient_error(cloud, spheron, answer, trouble):
    bad = {
        "drop": answer(drop=True),
        "500": answer({"error": "boom"}, 500),
        "html": answer(text="<html><title>One moment</title></html>"),
        "malformed": answer(text='{"teams": ['),
    }[trouble]
    cloud.once(BALANCE, bad, bad)
    assert spheron.account.balance_usd() == 82.4


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            {"text": "<html><title>Just  a moment</title></html>"},
            ["a web page titled 'Just a moment'", "SPHERON_URL"],
        ),
        ({"text": "{]"}, ["invalid JSON"]),
        ({"drop": True}, ["the connection was lost"]),
        ({"status": 503, "text": "<html>down</html>"}, ["503", "a web page", "cloud's side"]),
        ({"body": "fine"}, ["a string instead of a list"]),
        ({"body": {"what": []}}, ["an object with what"]),
        ({"status": 302, "headers": {"Location": "https://login.example/x"}}, ["redirects to login.example"]),
        ({"status": 401, "body": {"error": "Invalid"}}, ["401: Invalid", "SPHERON_API_KEY"]),
        ({"status": 403, "text": "Forbidden"}, ["403: Forbidden", "pulumi-vllm/"]),
        ({"status": 404, "text": "<html>lost</html>"}, ["404", "no answer of the API", "SPHERON_URL"]),
        ({"status": 404, "body": {"error": "Team not found"}}, ["404: Team not found"]),
    ],
)
def test_a_lasting_error_is_one_message(cloud, spheron, *, answer, clock, bad, words):
    cloud.always[BALANCE] = answer(**bad)
    with pytest.raises(CloudError) as caught:
        spheron.account.balance_usd()
    for word in ["asking for the balance: ", *words]:
        assert word in str(caught.value)
    assert sum(clock.slept) <= 31


def test_a_refusal_is_not_repeated(cloud, spheron, answer):
    cloud.always[BALANCE] = answer({"error": "no"}, 401)
    with pytest.raises(UnauthorizedError):
        spheron.account.balance_usd()
    assert cloud.count(BALANCE) == 1


def test_an_address_without_a_server_is_reported(cloud, key, clock):
    client = Spheron(key, url="http://127.0.0.1:9", clock=clock, sleep=clock.sleep)
    with pytest.raises(
        CloudError, match="can't be reached; check the network, then check SPHERON_URL"
    ) as caught:
        client.account.balance_usd()
    assert caught.value.effect_unknown is False


def test_a_429_is_repeated_after_the_requested_pause(cloud, spheron, answer, clock):
    cloud.once(
        BALANCE, answer({}, 429, {"Retry-After": "2"}), answer({"retryAfter": 3}, 429), answer({}, 429)
    )
    assert spheron.account.balance_usd() == 82.4
    # 2 s and 3 s as requested, 5 s by default, each with some jitter. Between them is the pace of the empty bucket.
    assert clock.slept[::2] == pytest.approx([2.2, 3.3, 5.5], rel=0.1)
    assert clock.slept[1::2] == pytest.approx([1, 1, 1])


def test_a_long_requested_pause_is_cut_short(cloud, spheron, answer, clock):
    """The server's clock may run faster than ours."""
    cloud.once(BALANCE, *[answer({}, 429, {"Retry-After": "900"})] * 3)
    assert spheron.account.balance_usd() == 82.4
    assert max(clock.slept) <= 6


def test_a_lasting_429_is_an_error_with_the_requested_pause(cloud, spheron, answer, clock):
    cloud.always[BALANCE] = answer(
        {"error": "slow down", "code": "RATE_LIMIT_EXCEEDED", "retryAfter": 900}, 429
    )
    with pytest.raises(RateLimitedError, match="429: slow down") as caught:
        spheron.account.balance_usd()
    assert caught.value.retry_after_s == 900
    assert sum(clock.slept) <= 33


def test_no_error_shows_the_key(cloud, spheron, answer, key):
    cloud.always[BALANCE] = answer({"error": f"key {key} and sai_pk_anotherKey are wrong"}, 400)
    with pytest.raises(CloudError) as caught:
        spheron.account.balance_usd()
    shown = "".join(traceback.format_exception(caught.value)) + repr(spheron) + repr(spheron.transport)
    assert "key *** and sai_pk_*** are wrong" in str(caught.value)
    assert "anotherKey" not in shown
    assert key not in shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("app.spheron.ai", "not a web address"),
        ("ftp://app.spheron.ai", "not a web address"),
        ("http://app.spheron.ai", "unencrypted"),
    ],
)
def test_an_invalid_url_is_refused(url, words, key):
    with pytest.raises(CloudError, match=words):
        Spheron(key, url=url)


@pytest.mark.parametrize("key", ["", " ", "sai_pk_a b", "sai_pk_a\n", "sai_pk_ä"])
def test_an_invalid_key_is_refused_and_not_shown(key):
    with pytest.raises(CloudError, match="SPHERON_API_KEY") as caught:
        Spheron(key, url="https://app.spheron.ai")
    assert not key.strip() or key.strip() not in str(caught.value)


def test_a_password_in_the_url_is_never_shown(key):
    assert "hunter" not in repr(Spheron(key, url="https://me:hunter@app.spheron.ai/api/"))


@pytest.mark.parametrize(
    ("body", "message"),
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
def test_every_shape_of_error_body_has_a_message(body, message):
    assert message in str(
        error_from_response("renting x", 400, body, secret="k" * 9, agent="a", remedies=FROM_ENVIRONMENT)
    )


def test_the_minimum_run_time_is_read_from_field_or_text():
    bodies = [
        {"error": "Minimum runtime not met", "canTerminate": False, "timeRemaining": 7},
        {"error": "Minimum runtime not met", "message": "at least 20 minutes. Time remaining: 7 minutes."},
    ]
    for body in bodies:
        error = error_from_response("ending m", 400, body, secret="", agent="", remedies=FROM_ENVIRONMENT)
        assert isinstance(error, TooEarlyError)
        assert error.remaining_min == 7


def test_the_rate_limiter_slows_down_and_never_refuses(clock):
    limiter = RateLimiter(3, 30.0, longest_pause_s=2.0, clock=clock)
    assert [limiter.take() for _ in range(3)] == [0, 0, 0]
    waits = []
    for _ in range(3):
        waits.append(limiter.take())
        clock.sleep(waits[-1])
    assert waits == pytest.approx([2, 2, 2])
    clock.sleep(60)
    assert limiter.take() == 0


def test_the_rate_limiter_follows_the_server(clock):
    limiter = RateLimiter(100, 900.0, clock=clock)
    limiter.server_refused()
    assert limiter.take() > 0
    limiter.server_accepted()
    assert [limiter.take() for _ in range(50)] == [0] * 50
    assert limiter.take() > 0
    limiter.server_reported(50)
    clock.sleep(3)
    assert [limiter.take() for _ in range(50)] == [0] * 50
    assert limiter.take() > 0


def test_remaining_calls_are_read_from_the_headers(cloud, spheron, answer, clock, team):
    cloud.always[BALANCE] = answer(
        {"teams": [{"teamId": team, "balance": 1}]}, headers={"X-RateLimit-Remaining": "0"}
    )
    spheron.account.balance_usd()
    spheron.account.balance_usd()
    assert clock.slept


def test_a_client_works_from_several_threads(cloud, spheron):
    found = []
    threads = [threading.Thread(target=lambda: found.append(spheron.account.balance_usd())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [82.4] * 8


def test_the_rental_limit_refuses_until_an_hour_has_passed(clock):
    limit = RentalLimit(2, clock=clock)
    for _ in range(2):
        limit.check("m")
        limit.record()
    with pytest.raises(CloudError, match="2 instances were rented within the hour"):
        limit.check("m")
    clock.sleep(3600)
    limit.check("m")
