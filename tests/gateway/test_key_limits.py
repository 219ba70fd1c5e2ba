"""Limits of one key, and the order of requests that wait for a place in the engine."""

import asyncio
import json

import attacks
import pytest
from gateway_client import KEY, LONG_S, OTHER, ask, next_chunk, open_stream, openai_error, until, waiting
from rendered_gateway import configuration

PEOPLE, BATCH = "team-a", "team-b"


def keys(**batch):
    """Keys of the stack file: one without limits, and one with these."""
    return {"allow": ["0.0.0.0/0"], "keys": [PEOPLE, {"name": BATCH, **batch}]}


async def test_each_key_has_its_own_limits_and_the_refusal_names_the_limit(gateways, backend):
    gateway = gateways({"access": keys(requests_per_minute=3)})
    found = [await gateway.one(ask({}, OTHER)) for _ in range(4)]
    assert [one.status for one in found] == [200, 200, 200, 429]
    assert [one.headers.get("x-ratelimit-remaining-requests") for one in found] == ["2", "1", "0", None]
    assert {one.headers["x-ratelimit-limit-requests"] for one in found} == {"3"}
    refused = openai_error(found[-1])
    assert json.loads(refused.body)["error"]["message"] == (
        "Key team-b may make 3 requests in 60 s (requests_per_minute)."
    )
    assert refused.headers["retry-after"] == "60"
    assert (await gateway.one(ask({}))).headers["x-ratelimit-limit-requests"] == "6000"
    assert len(backend.requests) == 4


async def test_concurrent_requests_are_those_that_run_or_wait(gateways, backend):
    gateway = gateways({"access": keys(concurrent=2), "concurrency": 1})
    streams = (
        asyncio.create_task(open_stream(gateway, 1, OTHER)),
        asyncio.create_task(open_stream(gateway, 1, OTHER)),
    )
    await until(lambda: waiting(gateway) == 1)
    refused = openai_error(await gateway.one(ask({}, OTHER)))
    assert json.loads(refused.body)["error"]["message"] == (
        "Key team-b may have 2 requests running or waiting at once (concurrent)."
    )
    assert int(refused.headers["retry-after"]) > 0
    for _ in streams:
        backend.turn()
    for stream in streams:
        reader, writer = await stream
        assert await asyncio.wait_for(reader.read(), LONG_S)
        writer.close()
    assert (await gateway.one(ask({}, OTHER))).status == 200


async def test_the_engine_gets_what_the_gateway_knows_and_nothing_that_a_client_claims(gateways, backend):
    claims = (
        "X-Key-Id: readiness\r\nX-Key-Tokens: 999999999\r\nX-Vllm-Priority: -9\r\n"
        "x-key-tokens: 1\r\nendpoint-load-metrics-format: TEXT\r\n"
    )
    gateway = gateways({"access": keys(priority="low", tokens_per_minute=70)})
    for key in (OTHER, KEY):
        assert (await gateway.one(attacks.request(key, headers=claims))).status == 200
    batch, people = backend.requests
    names = ("x-key-id", "x-key-tokens", "x-vllm-priority", "endpoint-load-metrics-format")
    assert [batch.values(name) for name in names] == [["team-b"], ["70"], ["1"], []]
    assert [people.values(name) for name in names] == [["team-a"], [], ["0"], []]


async def queued(gateway, first):
    """Requests in this order of arrival, while one stream holds the only place."""
    tasks = []
    for key, name in first:
        tasks.append(asyncio.create_task(gateway.one(ask({"name": name}, key))))
        await until(lambda: waiting(gateway) == len(tasks))
    return tasks


async def served(gateway, backend, first):
    """The order in which the engine gets requests that came in this order."""
    reader, writer = await open_stream(gateway, 1)
    tasks = await queued(gateway, first)
    backend.turn()
    assert await next_chunk(reader)
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    writer.close()
    return [json.loads(one.body)["name"] for one in backend.requests[1:]]


async def test_people_come_before_a_batch_job_that_came_first(gateways, backend):
    gateway = gateways({"access": keys(priority="low", concurrent=9), "concurrency": 1})
    order = await served(
        gateway, backend, [(OTHER, "b1"), (OTHER, "b2"), (KEY, "p1"), (OTHER, "b3"), (KEY, "p2")]
    )
    assert order == ["p1", "p2", "b1", "b2", "b3"]


async def full(gateway, places, waiting_s):
    """A key that may fill all places does so, and has as many requests that wait. Returns its streams and those."""
    streams = [await open_stream(gateway, 1, OTHER) for _ in range(places)]
    tasks = await queued(gateway, [(OTHER, f"b{number}") for number in range(places)])
    await asyncio.sleep(waiting_s)
    return streams, tasks


async def order_of(backend, streams, tasks):
    """The order in which the engine gets what waits, once one place after the other is free."""
    before = len(backend.requests)
    backend.turn()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    found = [json.loads(one.body)["name"] for one in backend.requests[before:]]
    for _ in streams[1:]:
        backend.turn()
    for reader, writer in streams:
        assert await next_chunk(reader)
        writer.close()
    return found


async def test_a_key_that_fills_every_place_keeps_another_waiting_for_the_next_free_one_only(
    gateways, backend
):
    """However long the others wait: 250 ms for each of the key's other requests were too few."""
    gateway = gateways({"concurrency": 4}, streams_per_key=8)
    streams, tasks = await full(gateway, 4, waiting_s=2.5)
    tasks.append(asyncio.create_task(gateway.one(ask({"name": "p1"}))))
    await until(lambda: waiting(gateway) == 5)
    tasks.append(asyncio.create_task(gateway.one(ask({"name": "p2"}))))
    await until(lambda: waiting(gateway) == 6)
    assert (await order_of(backend, streams, tasks))[:3] == ["p1", "p2", "b0"]


async def test_a_key_with_more_than_its_share_comes_by_time_so_that_a_busier_one_is_served_too(
    gateways, backend
):
    """A key that always came before a busier one would keep it from every place."""
    gateway = gateways({"concurrency": 4}, queue_timeout_s=4, streams_per_key=16)
    streams = [await open_stream(gateway, 1, OTHER) for _ in range(4)]
    tasks = await queued(gateway, [(OTHER, f"b{number}") for number in range(12)])
    await asyncio.sleep(2.2)  # more than half of the time that a request may wait
    for number in range(4):
        tasks.append(asyncio.create_task(gateway.one(ask({"name": f"p{number}"}))))
        await until(lambda: waiting(gateway) == len(tasks))
    found = await order_of(backend, streams, tasks)
    assert found[:2] == ["p0", "p1"], "the share of two keys is two of four places each"
    assert found[2:14] == [f"b{number}" for number in range(12)]
    assert found[14:] == ["p2", "p3"]


async def test_a_request_that_finds_no_place_in_time_is_a_503(gateways, backend):
    gateway = gateways({"concurrency": 1}, queue_timeout_s=1)
    reader, writer = await open_stream(gateway, 1)
    refused = openai_error(await gateway.one(ask({}, OTHER)))
    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    assert "no free place" in json.loads(refused.body)["error"]["message"]
    assert len(backend.requests) == 1
    backend.turn()
    assert await next_chunk(reader)
    writer.close()


@pytest.mark.parametrize(("priority", "places"), [("low", 6), ("normal", 7), ("high", 7)])
def test_keys_of_low_priority_leave_a_quarter_of_the_places_to_others(priority, places):
    limits = configuration({"access": keys(priority=priority), "concurrency": 8})["limits.map"]
    assert f"team-b/concurrent {places}\n" in limits
    assert "team-a/concurrent 7\n" in limits


@pytest.mark.parametrize(
    ("names", "concurrency", "streams_per_key", "most"),
    [
        (["a"], 8, None, 512),
        (["a"], 1024, None, 1024),
        (["a", "b"], 3, None, 512),
        (["a", "b"], 4, None, 3),
        (["a", "b", "c"], 256, None, 240),
        (["a", "b"], 256, 300, 300),
    ],
)
def test_no_key_of_several_fills_every_place(names, concurrency, streams_per_key, most):
    block = {"access": {"allow": ["0.0.0.0/0"], "keys": names}, "concurrency": concurrency}
    assert f"a/concurrent {most}\n" in configuration(block, streams_per_key=streams_per_key)["limits.map"]
