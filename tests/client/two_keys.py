"""One key that exceeds every limit it has, beside another that asks as people do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import ssl
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

import attacks
from adapted import MODEL, QUESTION, vast_image
from rendered_gateway import Gateway, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BATCH_KEY = "sk-of-a-batch-job"
BATCH = {
    "name": "batch",
    "priority": "low",
    "requests_per_minute": 600,
    "concurrent": 2,
    "tokens_per_minute": 2000,
}
BLOCK = {"access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", BATCH]}}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LOCAL_CONTEXT = 16_384
JSON = "Content-Type: application/json\r\n"
CLAIMS = JSON + "X-Vllm-Priority: -9\r\nX-Key-Tokens: 999999999\r\nX-Key-Id: team-a\r\n"
ANSWER_WITHIN_S = 120.0
_LIMITS = {
    "properties": {f"p{one}": {"type": "string", "pattern": "^(a|b|c){1,90}$"} for one in range(200)},
    "type": "object",
}
_TOOLS = [
    {"type": "function", "function": {"name": f"f{one}", "parameters": {"type": "object", "properties": {}}}}
    for one in range(256)
]  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """A gateway that runs somewhere, what it serves, and one key."""

    address: str
    port: int
    ca: str
    key: str
    model: str = MODEL
    context: int = LOCAL_CONTEXT

    @classmethod
    def of(cls, gateway: Gateway, key: str) -> Self:
        """One key at a gateway of the tests."""
        return cls("127.0.0.1", gateway.port, str(gateway.ca), key)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        tls = ssl.create_default_context(cafile=self.ca)
        return await asyncio.open_connection(self.address, self.port, ssl=tls, limit=1 << 22)


def text(words: int) -> str:
    """A text that no other request begins with, so that the prefix cache answers no part of it."""
    return f"{random.getrandbits(64):x} " + "word " * words


def long_text(context: int, share: float) -> str:
    """A prompt of that share of the context, short enough for the limit of the characters."""
    return text(int(context * share) - 100)


def abuses(model: str, context: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that take as much as one request may take, or more: endless, each time with other texts."""
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": vast_image()}}]}]
    long = {"ignore_eos": True, "max_tokens": 1500}
    for number in itertools.count():
        prompts = [text(300) for _ in range(32)]
        chats: tuple[dict[str, Any], ...] = (
            long,
            {**long, "stream": True, "priority": -9},
            {"n": 32, "temperature": 1, "max_tokens": 50, "ignore_eos": True},
            {"n": 10_000},
            {"messages": [{"role": "user", "content": long_text(context, 0.8)}], "max_tokens": 1},
            {"messages": [{"role": "user", "content": "word " * context}]},  # more than the context
            {"messages": image},
            {**long, "stream": True, "logprobs": True, "top_logprobs": 20},
            {"tools": _TOOLS, "max_tokens": 50},
            {"max_tokens": 200, "response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {**_LIMITS, "description": str(number)}}}},
            {**long, "max_tokens": context - 1000, "stream": True},
        )  # fmt: skip
        for body in chats:
            yield CHAT, {"model": model, "messages": QUESTION} | body
        yield COMPLETIONS, {"model": model, "prompt": prompts, "max_tokens": 1}
        yield (
            COMPLETIONS,
            {"model": model, "prompt": long_text(context, 0.05), "prompt_logprobs": 20, "max_tokens": 1},
        )
        yield "/tokenize", {"model": model, "prompt": "word " * 2_000}


async def abuse(there: Endpoint, found: Counter[int], streams: int, pause_s: float) -> None:
    """Send all abuses again and again over so many connections; `found` counts the statuses."""

    async def client(first: int) -> None:
        requests = itertools.islice(abuses(there.model, there.context), first % 14, None)
        for number, (path, body) in enumerate(requests, first):
            data = attacks.request(there.key, path, body=json.dumps(body).encode(), headers=CLAIMS)
            # Every third request is given up while its answer is computed.
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.3 if number % 3 == 0 else ANSWER_WITHIN_S):
                    for answer in await exchange(*await there.connect(), data, ANSWER_WITHIN_S):
                        found[answer.status] += 1
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(client(number) for number in range(streams)))


async def ordinary(there: Endpoint, found: Counter[int], streams: int, pause_s: float) -> None:
    """Ask as people do, over so many connections, for longer answers; `found` counts the statuses."""

    async def client() -> None:
        while True:
            with contextlib.suppress(OSError):
                found[(await person(there, tokens=256, words=200)).status] += 1
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(client() for _ in range(streams)))


@dataclass(frozen=True)
class Asked:
    """The answer to one question, and its seconds until the first token and until its end."""

    status: int
    first_s: float
    whole_s: float
    received: bytes

    @property
    def well(self) -> bool:
        """Whether the whole answer came."""
        return (
            self.status == 200 and b"data: [DONE]" in self.received and b'data: {"error"' not in self.received
        )


async def person(there: Endpoint, tokens: int = 16, words: int = 0) -> Asked:
    """One question, and its answer as a stream."""
    messages = (
        [{"role": "user", "content": f"{text(words)}\n{QUESTION[0]['content']}"}] if words else QUESTION
    )
    body = {
        "model": there.model,
        "messages": messages,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    data = attacks.request(there.key, CHAT, body=json.dumps(body).encode(), headers=JSON)
    began, first_s, received = time.perf_counter(), 0.0, b""
    reader, writer = await there.connect()
    try:
        writer.write(data)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while piece := await reader.read(1 << 16):
                received += piece
                if not first_s and b"data: {" in received:
                    first_s = time.perf_counter() - began
    finally:
        writer.close()
    status = int(received.split(b" ", 2)[1]) if received else 0
    return Asked(status, first_s, time.perf_counter() - began, received)


DOING = {"abuse": abuse, "ordinary": ordinary}


@contextlib.asynccontextmanager
async def other_key(
    there: Endpoint, streams: int, pause_s: float, doing: str = "abuse"
) -> AsyncIterator[Counter[int]]:
    """Use a key in a process of its own, as on another computer. The statuses are there at the end."""
    found: Counter[int] = Counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([asdict(there), doing, streams, pause_s]).encode() + b"\n")
    assert await process.stdout.readline() == b"begins\n"
    try:
        yield found
    finally:
        out, _ = await process.communicate(b"")
        found.update({int(status): count for status, count in json.loads(out).items()})


async def _main() -> None:
    """Do what the first line says until the standard input ends."""
    # Its own work is another computer's: here it takes no processor from a server that has a higher priority.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    there, doing, streams, pause_s = json.loads(sys.stdin.readline())
    found: Counter[int] = Counter()
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    working = asyncio.create_task(DOING[doing](Endpoint(**there), found, streams, pause_s))
    await asyncio.to_thread(sys.stdin.read)
    assert not working.done(), working
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # requests that still run are cut off


if __name__ == "__main__":
    asyncio.run(_main())
