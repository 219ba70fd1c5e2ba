"""The gateway's limits on requests, streams, bodies and silence, and its streaming, draining and reloading."""

import asyncio
import re

import attacks
import pytest
from gateway_client import KEY, LONG_S, OTHER, ask, next_chunk, open_stream, openai_error, until
from rendered_gateway import KEYS, configuration


def test_haproxys_own_limits_allow_the_largest_configurable_ones():
    text = configuration({"concurrency": 2048}, streams_per_key=2048, answer_timeout_s=3600)["haproxy.cfg"]
    (engine,) = re.findall(r"server local .* maxconn (\d+)\n", text)
    (clients,) = re.findall(r"^    maxconn (\d+)\n", text, re.MULTILINE)
    (after_a_reload,) = re.findall(r"hard-stop-after (\d+)m ", text)
    assert int(clients) > int(engine) == 2048
    assert int(after_a_reload) * 60 > 3600


async def test_each_token_arrives_before_the_next_one_is_sent(gateways, backend):
    """The engine sends chunk N + 1 only after the client has received chunk N, so buffering would block forever."""
    reader, _ = await open_stream(gateways(), 50)
    for number in range(50):
        backend.turn()
        assert await next_chunk(reader) == b'data: {"n":%d}\n\n' % number
    assert await next_chunk(reader) == b""


async def test_requests_per_minute_are_counted_per_key(gateways, backend):
    gateway = gateways(requests_per_minute=3)
    statuses = [(await gateway.one(ask({}))).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = openai_error(await gateway.one(ask({})))
    assert int(refused.headers["retry-after"]) > 0
    assert (await gateway.one(ask({}, OTHER))).status == 200
    assert (await gateway.one(ask({}, "sk-unknown"))).status == 401
    assert len(backend.requests) == 4


async def test_concurrent_streams_are_counted_per_key(gateways, backend):
    gateway = gateways(streams_per_key=2)
    running = [await open_stream(gateway, 1) for _ in range(2)]
    assert openai_error(await gateway.one(ask({}))).status == 429
    assert (await gateway.one(ask({}, OTHER))).status == 200
    for _ in running:
        backend.turn()
    for reader, writer in running:
        assert await next_chunk(reader)
        await asyncio.wait_for(reader.read(), LONG_S)
        writer.close()
    assert (await gateway.one(ask({}))).status == 200


async def test_the_largest_body_passes_and_one_byte_more_is_refused(gateways, backend):
    gateway, most = gateways(max_body_mib=1), 2**20
    assert (await gateway.one(attacks.request(KEY, body=b"x" * most))).status == 200
    assert len(backend.requests[-1].body) == most
    (refused,) = await gateway.ask(
        attacks.request(KEY, body=b"", headers=f"Content-Length: {most + 1}\r\n", length=False)
    )
    assert openai_error(refused).status == 413
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "cut", [b"POST /v1/comple", ask({})[:60], ask({})[:-1], b""], ids=["line", "header", "body", "nothing"]
)
async def test_a_slow_client_times_out(gateways, backend, cut):
    gateway = gateways(request_timeout_s=1)
    answers = await gateway.ask(cut, LONG_S)
    assert [one.status for one in answers] in ([408], [])
    if cut == ask({})[:-1]:  # a complete request head exists only here; otherwise HAProxy sends its own page
        openai_error(answers[0])
    assert backend.requests == []


async def test_an_engine_that_stays_silent_or_disconnects(gateways, backend):
    gateway = gateways(answer_timeout_s=1)
    assert openai_error(await gateway.one(ask({"hold": True}))).status == 504
    assert openai_error(await gateway.one(ask({"raw": ""}))).status == 502


async def test_the_engine_notices_a_client_that_disconnects(gateways, backend):
    gateway = gateways()
    _, writer = await gateway.connect()
    writer.write(ask({"hold": True}))
    await until(lambda: backend.requests)
    writer.transport.abort()
    assert await asyncio.to_thread(backend.gone.wait, LONG_S)


async def test_draining_finishes_streams_and_refuses_new_requests(gateways, backend):
    gateway = gateways()
    reader, writer = await open_stream(gateway, 2)
    gateway.state("drain")
    refused = openai_error(await gateway.one(ask({})))
    assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
    health = attacks.request(KEY, "/healthz", "GET", b"", auth="")
    assert openai_error(await gateway.one(health)).status == 503
    assert openai_error(await gateway.one(ask({}, "sk-unknown"))).status == 401
    backend.turn()
    assert await next_chunk(reader)
    backend.turn()
    assert await next_chunk(reader)
    assert await next_chunk(reader) == b""
    writer.close()
    gateway.state("ready")
    assert (await gateway.one(ask({}))).status == 200


async def test_an_engine_that_is_down_is_a_503(gateways, backend):
    gateway = gateways()
    backend.healthy = False
    await until(lambda: ",DOWN," in gateway.command("show stat vllm 4 -1"))
    assert openai_error(await gateway.one(ask({}))).status == 503


async def test_a_reload_for_new_keys_interrupts_no_request_and_no_stream(gateways, backend):
    gateway = gateways(requests_per_minute=1_000_000)
    reader, writer = await open_stream(gateway, 2)
    statuses, over = [], asyncio.Event()

    async def client():
        while not over.is_set():
            statuses.append((await gateway.one(ask({}, OTHER))).status)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    await until(lambda: len(statuses) > 20)
    gateway.write_keys({**KEYS, "team-a": "sk-a-new-value"})
    for _ in range(3):
        await asyncio.to_thread(gateway.reload)
        before = len(statuses)
        await until(lambda before=before: len(statuses) > before + 20)
    over.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert (await gateway.one(ask({}))).status == 401
    assert (await gateway.one(ask({}, "sk-a-new-value"))).status == 200
    for _ in range(2):
        backend.turn()
        assert await next_chunk(reader), "a stream that began before the reload was cut"
    writer.close()


def test_openais_client_reads_the_errors(gateways):
    import httpx2 as httpx
    import openai

    gateway = gateways(requests_per_minute=2)
    transport = httpx.Client(verify=gateway.tls())
    where = f"https://127.0.0.1:{gateway.port}/v1"
    with openai.OpenAI(base_url=where, api_key="sk-no", max_retries=0, http_client=transport) as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            client.models.list()
        assert (wrong.value.code, len(wrong.value.request_id)) == ("invalid_api_key", 36)
        known = client.with_options(api_key=KEY)
        with pytest.raises(openai.NotFoundError) as missing:
            known.files.list()
        assert missing.value.code == "not_found"
        with pytest.raises(openai.BadRequestError) as no_request:  # HAProxy's own page
            known.with_options(default_headers={"X-Long": "x" * 32_000}).models.list()
        assert no_request.value.status_code == 400
        for _ in range(2):
            known.post("/completions", body={"input": "x"}, cast_to=object)
        with pytest.raises(openai.RateLimitError) as many:
            known.post("/completions", body={"input": "x"}, cast_to=object)
        assert many.value.code == "rate_limit_exceeded"
        gateway.state("drain")
        with pytest.raises(openai.InternalServerError) as draining:
            client.with_options(api_key=OTHER).models.list()
        assert (draining.value.status_code, draining.value.code) == (503, "overloaded")
