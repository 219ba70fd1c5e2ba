"""One key that exceeds every limit it has, beside another that asks as people do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

import attacks
from adapted import KEY, MODEL, QUESTION, vast_image
from gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway import Answer

BATCH_KEY = "sk-of-a-batch-job"
BATCH = {
    "name": "batch",
    "priority": "low",
    "requests_per_minute": 600,
    "concurrent": 2,
    "tokens_per_minute": 2000,
}
BLOCK = {"access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", BATCH]}}
CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"
CLAIMS = JSON + "X-Vllm-Priority: -9\r\nX-Key-Tokens: 999999999\r\nX-Key-Id: team-a\r\n"
_IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": vast_image()}}]}]

ABUSES: tuple[tuple[str, dict[str, Any]], ...] = (
    (CHAT, {"max_tokens": 1500, "ignore_eos": True}),
    (CHAT, {"max_tokens": 1500, "ignore_eos": True, "stream": True, "priority": -9}),
    ("/v1/completions", {"prompt": ["word " * 300] * 32, "max_tokens": 1}),
    (CHAT, {"n": 32, "temperature": 1, "max_tokens": 50}),
    (CHAT, {"n": 10_000}),
    (CHAT, {"messages": [{"role": "user", "content": "word " * 13_000}]}),
    (CHAT, {"messages": _IMAGE}),
    ("/tokenize", {"prompt": "word " * 2_000}),
)
"""Requests that take as much as one request may take, or more."""


async def abuse(there: Gateway, found: Counter[int], streams: int, pause_s: float) -> None:
    """Send all of ABUSES again and again over so many connections; `found` counts the statuses."""

    async def client(first: int) -> None:
        number = first
        while True:
            path, more = ABUSES[number % len(ABUSES)]
            number += 1
            body = json.dumps({"model": MODEL} | ({} if "prompt" in more else {"messages": QUESTION}) | more)
            data = attacks.request(BATCH_KEY, path, body=body.encode(), headers=CLAIMS)
            # Every third request is given up while its answer is computed.
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.3 if number % 3 == 0 else 60):
                    for answer in await there.ask(data):
                        found[answer.status] += 1
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(client(number) for number in range(streams)))


async def person(there: Gateway, tokens: int = 16) -> tuple[Answer, float]:
    """One question of the other key, and its seconds until the whole answer."""
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    began = time.perf_counter()
    answer = await there.one(attacks.request(KEY, CHAT, body=json.dumps(body).encode(), headers=JSON))
    return answer, time.perf_counter() - began


@contextlib.asynccontextmanager
async def other_key(there: Gateway, streams: int, pause_s: float) -> AsyncIterator[Counter[int]]:
    """Run `abuse` in a process of its own, as on another computer. The statuses are there at the end."""
    words = [__file__, str(there.port), str(there.folder), str(streams), str(pause_s)]
    found: Counter[int] = Counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        yield found
    finally:
        out, _ = await process.communicate(b"")
        found.update({int(status): count for status, count in json.loads(out).items()})


async def _main(port: str, folder: str, streams: str, pause_s: str) -> None:
    """Abuse until the standard input ends."""
    # Its own work is another computer's: here it takes no processor from a server that has a higher priority.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    there, found = Gateway.__new__(Gateway), Counter()
    there.port, there.ca = int(port), Path(folder) / "ca.pem"
    working = asyncio.create_task(abuse(there, found, int(streams), float(pause_s)))
    await asyncio.to_thread(sys.stdin.read)
    assert not working.done(), working
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # requests that still run are cut off


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
