"""Several engines behind one gateway: who gets which request."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from backend import Backend
from gateway_client import LONG_S, until, waiting
from pulumi_vllm.render import layout
from rendered_gateway import KEYS, Gateway

SYSTEM = {"role": "system", "content": 'You say "yes", {never} [no] \\ é'}
LUA = Path(__file__).parents[2] / f"templates{layout.CONVERSATION}"


@pytest.fixture
def engines():
    with contextlib.ExitStack() as started:
        yield [started.enter_context(Backend()) for _ in range(2)]


def two_engines(engines, folder, **more_changes):
    several = {"machine": {"gpu": "CPU", "count": 0, "engines": 2, "max_usd_per_hour": 1}, "concurrency": 16}
    changes = {"127.0.0.1:8001 ": f"127.0.0.1:{engines[1].port} ", layout.CONVERSATION: str(LUA)}
    return Gateway(folder / "gateway", engines[0].port, changes=changes | more_changes, more=several)


@pytest.fixture
def gateway(engines, tmp_path):
    with two_engines(engines, tmp_path) as started:
        yield started


def ask(body, path="/v1/chat/completions", key="team-a", indent=None, **headers):
    data = json.dumps(body, indent=indent).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEYS[key]}\r\n{more}"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


def turns(number, first, **more):
    """A chat whose last message is the user's turn of this number."""
    said = [{"role": "user", "content": first}]
    for one in range(1, number):
        said += [
            {"role": "assistant", "content": f"answer {one}"},
            {"role": "user", "content": f"turn {one}"},
        ]
    return {"model": "m", "messages": [SYSTEM, *said], "max_tokens": number, **more}


async def engine_of(gateway, engines, data):
    """The number of the engine that got a request."""
    before = [len(one.requests) for one in engines]
    answer = await gateway.one(data)
    assert answer.status == 200, answer
    (number,) = [n for n, one in enumerate(engines) if len(one.requests) > before[n]]
    return number


async def test_a_conversation_stays_on_one_engine_and_different_ones_spread(gateway, engines):
    used = Counter()
    for conversation in range(16):
        first = f"question {conversation} " + "x" * conversation
        found = {await engine_of(gateway, engines, ask(turns(number, first))) for number in range(1, 6)}
        assert len(found) == 1
        used += Counter(found)
    assert min(used[0], used[1]) >= 2


@pytest.mark.parametrize(
    "variant",
    [
        lambda number, name: ask(turns(number, name), indent=2),
        lambda number, name: ask(turns(number, [{"type": "text", "text": name}, {"type": "text", "text": "}"}])),
        lambda number, name: ask({"max_tokens": number, "input": turns(number, name)["messages"][1:],
                                  "instructions": "be brief"}, "/v1/responses"),
        lambda number, name: ask({"system": "be brief", **turns(number, name)}, "/v1/messages"),
        lambda number, name: ask({"prompt": f"turn {number}", "prompt_cache_key": name}, "/v1/completions"),
        lambda number, name: ask({"prompt": f"turn {number}"}, "/v1/completions", x_session_id=name),
        lambda number, name: ask(turns(number, f"{number}"), session_id=name),
        lambda number, name: ask(turns(number, f"{number}"), x_claude_code_session_id=name),
        lambda number, name: ask({"messages": [{"content": name, "role": "user"}, *[{"content": "a"}] * number]}),
        # An empty name is none: it would put all who send it on one engine.
        lambda number, name: ask({"prompt_cache_key": "", **turns(number, name)}),
        lambda number, name: ask(turns(number, name), x_session_id=""),
        # The first message is all of the body that the gateway knows.
        lambda number, name: ask(turns(number, name + "y" * 100_000)),
    ],
)  # fmt: skip
async def test_every_way_to_name_a_conversation(gateway, engines, variant):
    used = set()
    for name in "abcdefgh":
        found = {await engine_of(gateway, engines, variant(number, name)) for number in (1, 2, 5)}
        assert len(found) == 1
        used |= found
    assert used == {0, 1}


async def test_two_keys_do_not_share_a_conversation(gateway, engines):
    names = [f"{number}" for number in range(12)]
    of_each = [
        [await engine_of(gateway, engines, ask(turns(1, name), key=key)) for name in names] for key in KEYS
    ]
    assert of_each[0] != of_each[1]


async def hold(gateway, engines, number, data):
    """A request that its engine keeps. Waits until it is there, and returns the connection."""
    before = (
        len(engines[number].requests) if number is not None else sum(len(one.requests) for one in engines)
    )
    reader, writer = await gateway.connect()
    writer.write(data)
    await writer.drain()
    if number is None:
        await until(lambda: sum(len(one.requests) for one in engines) > before)
    else:
        await until(lambda: len(engines[number].requests) > before)
    return reader, writer


async def let_go(held, engines):
    for _, writer in held:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    await until(lambda: all(one.gone.is_set() or not one.requests for one in engines))
    await asyncio.sleep(0.2)  # the engines close their side too


async def test_a_request_without_a_conversation_goes_to_the_least_busy(gateway, engines):
    held = [
        await hold(gateway, engines, None, ask({"prompt": "x", "hold": True}, "/v1/completions"))
        for _ in range(6)
    ]
    assert [len(one.requests) for one in engines] == [3, 3]
    await let_go(held, engines)


async def test_a_busy_engine_passes_conversations_on(gateway, engines):
    """Bounded load: one conversation's requests fill no engine while another one is idle."""
    data = ask(turns(1, "the same for all", hold=True))
    held = [await hold(gateway, engines, None, data) for _ in range(6)]
    assert sorted(len(one.requests) for one in engines) in ([2, 4], [3, 3])
    await let_go(held, engines)


async def test_an_engine_with_little_to_do_keeps_its_conversations(gateway, engines):
    """One running request where a conversation belongs, and none elsewhere, is no reason to move it."""
    held = await hold(gateway, engines, None, ask(turns(1, "long", hold=True)))
    (busy,) = [number for number, one in enumerate(engines) if one.requests]
    names = [f"question {number}" for number in range(8)]
    before = {name: await engine_of(gateway, engines, ask(turns(1, name))) for name in names}
    await let_go([held], [engines[busy]])
    after = {name: await engine_of(gateway, engines, ask(turns(2, name))) for name in names}
    assert before == after
    assert busy in before.values()


@pytest.mark.parametrize("state", ["drain", "maint"])
async def test_an_engine_that_is_out_gets_nothing_and_gets_its_conversations_back(gateway, engines, state):
    names = [f"question {number}" for number in range(8)]
    before = {name: await engine_of(gateway, engines, ask(turns(1, name))) for name in names}
    assert not gateway.command(f"set server vllm/engine0 state {state}").strip()
    for name in names:
        assert await engine_of(gateway, engines, ask(turns(2, name))) == 1
        assert await engine_of(gateway, engines, ask({"prompt": name}, "/v1/completions")) == 1
    assert not gateway.command("set server vllm/engine0 state ready").strip()
    assert {name: await engine_of(gateway, engines, ask(turns(3, name))) for name in names} == before


@pytest.fixture
def ends():
    """What ends the first engine."""
    with contextlib.ExitStack() as one:
        yield one


@pytest.fixture
def mortal(ends, tmp_path):
    with Backend() as other:
        engines = [ends.enter_context(Backend()), other]
        with two_engines(engines, tmp_path) as started:
            yield started, engines


async def test_requests_wait_for_a_full_engine_from_the_moment_when_the_other_one_ends(mortal, ends):
    """Until the next check fails, it is the only one with a free place."""
    gateway, engines = mortal
    names = [f"question {number}" for number in range(4)]
    gateway.command("set server vllm/engine0 state drain")
    long = ask({"prompt": "x", "hold": True}, "/v1/completions")
    held = [await hold(gateway, engines, 1, long) for _ in range(8)]
    gateway.command("set server vllm/engine0 state ready")
    for name in names:
        assert await engine_of(gateway, engines, ask(turns(1, name))) == 0
    ends.close()
    waiting = [asyncio.create_task(gateway.one(ask(turns(2, name)))) for name in names]
    await asyncio.sleep(0.5)
    await let_go(held, engines[1:])
    assert [(await one).status for one in waiting] == [200] * len(names)


async def test_health_counts_engines_and_needs_one(gateway, engines):
    health = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    assert json.loads((await gateway.one(health)).body) == {"status": "listens", "engines": 2}
    engines[1].healthy = False
    await until_health(gateway, health, 1)
    engines[0].healthy = False
    for _ in range(LONG_S * 10):
        answer = await gateway.one(health)
        if answer.status == 503:
            break
        await asyncio.sleep(0.1)
    assert answer.status == 503


ENGINE = """
import sys
from backend import Backend
with Backend() as engine:
    print(engine.port, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class EngineProcess:
    port: int
    process: subprocess.Popen


@pytest.fixture
def stoppable():
    """An engine in a process of its own."""
    command = [sys.executable, "-c", ENGINE]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield EngineProcess(int(process.stdout.readline()), process)
        process.send_signal(signal.SIGCONT)
        process.stdin.close()


@pytest.fixture
def late():
    with Backend(health_s=3.0) as one:
        yield one


async def test_a_stopped_process_is_out_after_one_check_and_a_late_one_is_not(stoppable, late, tmp_path):
    soon = {"timeout check 30s": "timeout check 4s"}
    with two_engines([stoppable, late], tmp_path, **soon) as gateway:
        health = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
        await until_health(gateway, health, 2)
        stoppable.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        await until_health(gateway, health, 1)
        assert time.monotonic() - begun < 2 * 4, "one check, not two"
        names = [f"question {number}" for number in range(4)]
        assert [(await gateway.one(ask(turns(1, name)))).status for name in names] == [200] * 4
        stoppable.process.send_signal(signal.SIGCONT)
        await until_health(gateway, health, 2)


async def until_health(gateway, health, ready):
    for _ in range(LONG_S * 10):
        answer = await gateway.one(health)
        if answer.status == 200 and json.loads(answer.body)["engines"] == ready:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(answer)


async def test_a_key_that_fills_every_engine_keeps_another_waiting_for_the_next_free_place_only(
    engines, tmp_path
):
    several = {"machine": {"gpu": "CPU", "count": 0, "engines": 2, "max_usd_per_hour": 1}, "concurrency": 4}
    changes = {"127.0.0.1:8001 ": f"127.0.0.1:{engines[1].port} ", layout.CONVERSATION: str(LUA)}

    def long(number):
        return ask({"prompt": f"long {number}", "wait": True}, "/v1/completions", "team-b")

    with Gateway(
        tmp_path / "gateway", engines[0].port, changes=changes, more=several, streams_per_key=8
    ) as gateway:
        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(gateway.one(long(number))))
            await until(lambda number=number: waiting(gateway) == max(0, number - 3))
            await until(lambda number=number: sum(len(one.requests) for one in engines) == min(4, number + 1))
        assert [len(one.requests) for one in engines] == [2, 2]
        await asyncio.sleep(2.5)  # they have waited for longer than a person will
        tasks.append(asyncio.create_task(gateway.one(ask(turns(1, "a person")))))
        await until(lambda: waiting(gateway) == 5)
        engines[1].turn()
        await until(lambda: len(engines[1].requests) > 2)
        assert b"a person" in engines[1].requests[2].body
        for engine in engines:
            for _ in range(8):
                engine.turn()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_each_engine_admits_its_share_of_a_keys_tokens(engines, tmp_path):
    access = {"allow": ["0.0.0.0/0"], "keys": ["team-a", {"name": "team-b", "tokens_per_minute": 1001}]}
    several = {"machine": {"gpu": "CPU", "count": 0, "engines": 2, "max_usd_per_hour": 1}, "access": access}
    changes = {"127.0.0.1:8001 ": f"127.0.0.1:{engines[1].port} ", layout.CONVERSATION: str(LUA)}
    with Gateway(tmp_path / "gateway", engines[0].port, changes=changes, more=several) as gateway:
        assert (await gateway.one(ask(turns(1, "a"), key="team-b"))).status == 200
    (request,) = [one for engine in engines for one in engine.requests]
    assert request.values("x-key-tokens") == ["501"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"[" * 400, b'{"messages": [' * 200,
     b'{"messages": [{"role": "user", "content": "\\',
     b"\0" * 5_000,
     b'{"messages": {"role": "user"}}', b'{"messages": [{"role": 1}]}', b'{"prompt_cache_key": 5, "messages": 1}',
     b'{"messages": [' + b'{"role": "system", "content": "x"},' * 900],
)  # fmt: skip
async def test_no_body_stops_the_gateway(gateway, engines, body):
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEYS['team-a']}\r\n"
    )
    data = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    assert (await gateway.one(data)).status == 200
    assert await engine_of(gateway, engines, ask(turns(1, "and after it"))) in {0, 1}
