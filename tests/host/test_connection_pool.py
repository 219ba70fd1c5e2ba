"""The pool makes one connection and one probe per host, and shares failures."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from pulumi_vllm.host import connection_pool
from pulumi_vllm.host.connection_pool import ConnectionPool
from pulumi_vllm.host.ssh import Address, HostError, Unreachable

EMPTY = {"probe": 1}


@pytest.fixture
async def pool(sshd):
    sshd.answer = json.dumps(EMPTY).encode()
    made = ConnectionPool()
    yield made
    await made.close()


async def test_concurrent_callers_share_one_connection_and_one_probe(sshd, pool, pem, host_key):
    async def ask(number):
        host = await pool.get(sshd.address, pem, host_key)
        return await pool.facts(host, paths=(f"/etc/pulumi-vllm/{number}",))

    assert len(await asyncio.gather(*map(ask, range(8)))) == 8
    assert (sshd.logins, len(sshd.commands)) == (1, 1)


async def test_a_request_for_more_probes_once_more(sshd, pool, pem, host_key):
    host = await pool.get(sshd.address, pem, host_key)
    for _ in range(2):
        await pool.facts(host)
        await pool.facts(host, paths=("/etc/motd",), units=("ours.service",), weights="/models/weights/a/b/c")
    assert len(sshd.commands) == 2
    assert "/etc/motd" in sshd.commands[1]


async def test_a_changed_host_is_probed_again(sshd, pool, pem, host_key):
    host = await pool.get(sshd.address, pem, host_key)
    await pool.facts(host)
    pool.mark_changed(host)
    await pool.facts(host)
    assert len(sshd.commands) == 2


async def test_old_facts_are_probed_again(sshd, pem, host_key):
    now = [0.0]
    pool = ConnectionPool(clock=lambda: now[0])
    sshd.answer = json.dumps(EMPTY).encode()
    host = await pool.get(sshd.address, pem, host_key)
    await pool.facts(host)
    now[0] = 11.0
    await pool.facts(host)
    assert len(sshd.commands) == 2
    await pool.close()


async def test_concurrent_callers_share_one_connection_timeout(monkeypatch, pem):
    monkeypatch.setattr(connection_pool, "_CONNECT_S", 0.2)
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    address = Address("127.0.0.1", silent.sockets[0].getsockname()[1])
    pool, started = ConnectionPool(), time.monotonic()
    failures = await asyncio.gather(*(pool.get(address, pem, None) for _ in range(8)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {Unreachable}
    assert len({str(failure) for failure in failures}) == 1
    assert time.monotonic() - started < 0.8
    for writer in writers:
        writer.close()
    silent.close()
    await silent.wait_closed()


async def test_a_forgotten_host_is_connected_again(sshd, pool, pem, host_key):
    first = await pool.get(sshd.address, pem, host_key)
    await pool.facts(first)
    await pool.forget("127.0.0.1")
    await sshd.stop()
    with pytest.raises(Unreachable):
        await pool.get(sshd.address, pem, host_key)
    await pool.forget("127.0.0.1")
    await sshd.start()
    assert await pool.get(sshd.address, pem, host_key) is first
    await pool.facts(first)
    assert (sshd.logins, len(sshd.commands)) == (2, 2)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"not json", b'{"probe": 2}', b'{"probe": 1, "files": {"/x": {}}}']
)
async def test_malformed_probe_output_is_an_error(sshd, pool, pem, host_key, answer):
    host = await pool.get(sshd.address, pem, host_key)
    sshd.answer = answer
    with pytest.raises(HostError, match="the probe"):
        await pool.facts(host)
