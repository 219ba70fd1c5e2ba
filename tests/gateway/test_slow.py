"""Slow, silent and broken clients and engines, and connections that stay open."""

import asyncio
import contextlib

import attacks
import pytest
from gateway_client import KEY, LONG_S, OTHER, ask, openai_error
from rendered_gateway import KEYS, answers


async def read_on(reader):
    """Everything that is still received."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), LONG_S)
    return b""


def kept_open(key):
    return ask({}, key).replace(b"Connection: close\r\n", b"")


async def on(link, data):
    """The answer to one request on a connection that stays open; None if the connection was closed."""
    reader, writer = link
    try:
        writer.write(data)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG_S)
    except (ConnectionError, asyncio.IncompleteReadError):
        return None
    (bare,) = answers(head)
    return answers(head + await reader.readexactly(int(bare.headers["content-length"])))[0]


async def test_the_header_timeout_covers_the_whole_header(gateways, backend):
    reader, writer = await gateways(request_timeout_s=1).connect()
    sent, whole = 0, attacks.request(KEY, headers=f"X-Long: {'x' * 600}\r\n")
    with contextlib.suppress(ConnectionError):
        while sent < len(whole) and not reader.at_eof():
            writer.write(whole[sent : sent + 1])
            await writer.drain()
            sent += 1
            await asyncio.sleep(0.02)
    assert sent < len(whole)
    assert [one.status for one in answers(await read_on(reader))] in ([408], [])
    assert backend.requests == []
    writer.close()


async def test_a_large_body_that_stops_halfway_times_out(gateways, backend):
    """After the first 32 KiB the engine has the request, so HAProxy counts the silence as the engine's."""
    gateway = gateways(answer_timeout_s=1)
    data = attacks.request(KEY, body=b"x" * 200_000)
    (found,) = await gateway.ask(data[:120_000], LONG_S)
    assert openai_error(found).status == 504
    assert backend.requests == []


async def test_a_silent_client_is_disconnected(gateways):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateways(idle_timeout_s=1).port)
    assert await read_on(reader) == b""
    writer.close()


async def test_the_engine_may_stay_silent_for_longer_than_a_client(gateways, backend):
    gateway = gateways(idle_timeout_s=1)
    waiting = asyncio.create_task(gateway.one(ask({"wait": True})))
    await asyncio.sleep(2.5)
    backend.turn()
    assert (await waiting).status == 200


async def test_the_engine_stops_for_a_client_that_reads_nothing(gateways, backend):
    _, writer = await gateways(idle_timeout_s=1).connect()
    writer.transport.pause_reading()
    writer.write(ask({"flood": True}))
    assert await asyncio.to_thread(backend.gone.wait, LONG_S)
    writer.transport.abort()


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "this is no HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        f"HTTP/1.1 200 OK\r\nX: {'x' * 40_000}\r\n\r\n",
    ],
    ids=["nothing", "no HTTP", "half a header", "two lengths", "a huge header"],
)
async def test_an_invalid_answer_of_the_engine_is_a_502(gateways, raw):
    assert openai_error(await gateways().one(ask({"raw": raw}))).status == 502


async def test_a_stream_that_the_engine_aborts_has_no_final_chunk(gateways):
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await gateways().connect()
    writer.write(ask({"raw": head + "5\r\nhello\r\n"}))
    received = await read_on(reader)
    assert b"hello" in received
    assert b"\r\n0\r\n" not in received, "a client would take half an answer for a whole one"
    writer.close()


async def test_an_open_connection_belongs_to_no_key(gateways, backend):
    """While idle it counts for no key, and each request on it has the key of its own header."""
    gateway = gateways(streams_per_key=1)
    link = await gateway.connect()
    assert (await on(link, kept_open(KEY))).status == 200
    assert (await gateway.one(ask({}))).status == 200
    assert (await on(link, kept_open(OTHER))).status == 200
    assert openai_error(await on(link, kept_open("sk-unknown"))).status == 401
    no_key = attacks.request(KEY, auth="").replace(b"Connection: close\r\n", b"")
    refused = await on(link, no_key)
    assert refused is None or refused.status == 401
    assert [one.values("x-key-id") for one in backend.requests] == [["team-a"], ["team-a"], ["team-b"]]
    link[1].close()


async def test_a_connection_from_before_a_reload_accepts_no_old_key(gateways):
    """The reload closes it. Otherwise an idle one would stay open for 30 s in a process that has the old keys."""
    gateway = gateways()
    links = [await gateway.connect() for _ in range(8)]
    for link in links:
        assert (await on(link, kept_open(KEY))).status == 200
    gateway.write_keys({**KEYS, "team-a": "sk-a-new-value"})
    await asyncio.to_thread(gateway.reload)
    for reader, writer in links:
        assert await asyncio.wait_for(reader.read(), 15) == b""
        writer.close()


async def test_silent_connections_of_one_address_keep_no_other_address_out(gateways):
    """Without a limit, 4,096 of them filled the gateway for a minute."""
    gateway = gateways()
    silent = []
    try:
        for _ in range(2_300):
            with contextlib.suppress(ConnectionResetError):
                silent.append(await asyncio.open_connection("127.0.0.1", gateway.port))
        await asyncio.sleep(0.5)
        assert sum(not reader.at_eof() and reader.exception() is None for reader, _ in silent) == 2_048
        reader, writer = await gateway.connect("127.0.0.2")
        writer.write(ask({}))
        assert [one.status for one in answers(await read_on(reader))] == [200]
        writer.close()
    finally:
        for _, writer in silent:
            writer.transport.abort()
    await asyncio.sleep(0.5)
    assert (await gateway.one(ask({}))).status == 200
