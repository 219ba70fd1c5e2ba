"""Many streams through the gateway at once, and how each of them ends."""

import asyncio
import json
import random
import ssl
from collections import Counter
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Outcomes:
    """How streams and new connections ended."""

    streams: Counter = field(default_factory=Counter)
    """finished, error (an error event), cut (neither)."""
    attempts: Counter = field(default_factory=Counter)
    """New requests while the machine goes: a status, refused (by the kernel), gone (no answer: the machine is off)."""
    reasons: Counter = field(default_factory=Counter)


async def one_stream(session, outputs, tokens: int, outcomes: Outcomes, started: list[int]) -> None:
    body = {
        "model": outputs["model"],
        "prompt": "Hello",
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    ending = "cut"
    try:
        async with session.post(f"{outputs['endpoint']}/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            started.append(tokens)
            async for line in answer.content:
                if line.strip() == b"data: [DONE]" and ending == "cut":
                    ending = "finished"
                elif line.startswith(b"data: {") and "error" in json.loads(line[6:]):
                    ending = "error"
                    outcomes.reasons[json.loads(line[6:])["error"]["message"][:80]] += 1
    except aiohttp.ClientError as error:
        outcomes.reasons[f"{type(error).__name__}: {error}"[:80]] += 1
    finally:
        outcomes.streams[ending] += 1


async def attempts(context, outputs, key: str, outcomes: Outcomes) -> None:
    """Make new requests on new connections until the machine is off."""
    body = {"model": outputs["model"], "prompt": "Hello", "max_tokens": 1}
    silent = 0
    while silent < 3:
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        limit = aiohttp.ClientTimeout(total=20, sock_connect=2)
        async with aiohttp.ClientSession(connector=connector, headers=key, timeout=limit) as session:
            try:
                async with session.post(f"{outputs['endpoint']}/completions", json=body) as answer:
                    await answer.read()
                    with_time = answer.status != 503 or "Retry-After" in answer.headers
                    outcomes.attempts[str(answer.status) if with_time else "503 without Retry-After"] += 1
                    silent = 0
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, ConnectionRefusedError):
                    outcomes.attempts["refused"] += 1
                else:
                    outcomes.attempts["gone"] += 1
                    silent += 1
            except aiohttp.ConnectionTimeoutError:
                outcomes.attempts["gone"] += 1
                silent += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                outcomes.attempts["broken"] += 1
                outcomes.reasons[f"attempt: {type(error).__name__}: {error}"[:80]] += 1
                silent += 1
        await asyncio.sleep(0.05)


async def _through(take, outputs, tokens: list[int]) -> Outcomes:
    outcomes, started = Outcomes(), []
    context = ssl.create_default_context(cadata=outputs["ca_certificate"])
    key = {"Authorization": f"Bearer {outputs['api_key']}"}
    limit = aiohttp.ClientTimeout(total=None, sock_read=120)
    connector = aiohttp.TCPConnector(ssl=context, limit=len(tokens))
    async with aiohttp.ClientSession(connector=connector, headers=key, timeout=limit) as session:
        running = [
            asyncio.ensure_future(one_stream(session, outputs, number, outcomes, started))
            for number in tokens
        ]
        async with asyncio.timeout(60):
            while len(started) < len(tokens):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(take)
        await asyncio.gather(attempts(context, outputs, key, outcomes), *running)
    return outcomes


def through_a_loss(take, outputs, seed: int) -> Outcomes:
    """Run streams, call `take`, which ends the machine with notice, and wait for all of them.

    A token takes 25 ms, so streams last 3 to 50 s. vLLM gives them 30 s to finish.
    """
    chance = random.Random(seed)
    return asyncio.run(_through(take, outputs, [chance.randint(100, 2000) for _ in range(50)]))
