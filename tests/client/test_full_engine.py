"""A key sends twice as many long requests as the engine has places. How long does another one wait?

`python -m pytest -s tests/client/test_full_engine.py` prints the figures.
"""

import asyncio
import json
import random
import statistics
import time

import attacks
import pytest
from adapted import KEY, MODEL, QUESTION
from two_keys import BATCH_KEY, CHAT, JSON

PLACES, TOKEN_MS, QUESTIONS, ANSWER = 8, 20, 15, 4
LONG = (100, 300)
"""Tokens of the long answers: 2 to 6 s."""


async def ask(there, key, tokens):
    """One request's status, and its seconds until the whole answer."""
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    began = time.monotonic()
    answer = await there.one(attacks.request(key, CHAT, body=json.dumps(body).encode(), headers=JSON))
    return answer.status, time.monotonic() - began


async def fill(there, key, streams, ended, over):
    """Send long requests over so many connections. `ended` gets the times at which their answers end."""
    tokens = random.Random(1)

    async def client():
        while not over.is_set():
            status, _ = await ask(there, key, tokens.randint(*LONG))
            assert status == 200
            ended.append(time.monotonic())

    async with asyncio.TaskGroup() as clients:
        for _ in range(streams):
            clients.create_task(client())


async def beside(there, pause_s=0.2):
    """Seconds of questions alone, of questions beside the other key, and what these take with the next free place."""
    alone = statistics.median([(await ask(there, KEY, ANSWER))[1] for _ in range(5)])
    ended, waited, sent, over = [], [], [], asyncio.Event()
    filling = asyncio.create_task(fill(there, BATCH_KEY, 2 * PLACES, ended, over))
    await asyncio.sleep(LONG[1] * TOKEN_MS / 1000)  # the places become free one after the other
    while len(waited) < QUESTIONS:
        sent.append(time.monotonic())
        status, seconds = await ask(there, KEY, ANSWER)
        assert status == 200
        waited.append(seconds)
        await asyncio.sleep(pause_s)
    over.set()
    await filling
    next_place = [min(one for one in ended if one > began) - began + alone for began in sent]
    return alone, waited, next_place


@pytest.mark.ci
def test_a_question_waits_for_the_next_free_place_only(start, gateway):
    engine = start("--max-num-seqs", str(PLACES), token_ms=TOKEN_MS)
    batch = {"name": "batch", "concurrent": 2 * PLACES}
    block = {"concurrency": PLACES, "access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", batch]}}
    there = gateway(engine, {"batch": BATCH_KEY}, block)
    alone, waited, next_place = asyncio.run(beside(there))
    median, implied = statistics.median(waited), statistics.median(next_place)
    print(  # noqa: T201 - the figures
        f"alone {alone:.2f} s; beside {2 * PLACES} requests for {PLACES} places: median {median:.2f} s, longest "
        f"{max(waited):.2f} s; with the next free place {implied:.2f} s ({median / implied - 1:+.0%})"
    )
    assert median < 1.2 * implied


def test_a_key_without_limits_leaves_a_place(start, gateway):
    """Its answers run for longer than the 30 s that others may wait for a place."""
    engine = start("--max-num-seqs", str(PLACES), token_ms=TOKEN_MS)
    block = {"concurrency": PLACES, "access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", "batch"]}}
    there = gateway(engine, {"batch": BATCH_KEY}, block)

    async def beside_long_answers():
        alone = statistics.median([(await ask(there, KEY, ANSWER))[1] for _ in range(5)])
        filling = [asyncio.create_task(ask(there, BATCH_KEY, 38_000 // TOKEN_MS)) for _ in range(2 * PLACES)]
        done, _ = await asyncio.wait(filling, timeout=2)
        refused = [one.result()[0] for one in done]
        answers = [await ask(there, KEY, ANSWER) for _ in range(QUESTIONS)]
        for one in filling:
            one.cancel()
        await asyncio.gather(*filling, return_exceptions=True)
        return alone, refused, answers

    alone, refused, answers = asyncio.run(beside_long_answers())
    assert refused == [429] * (PLACES + 1)
    assert {status for status, _ in answers} == {200}
    assert statistics.median(seconds for _, seconds in answers) < 2 * alone
