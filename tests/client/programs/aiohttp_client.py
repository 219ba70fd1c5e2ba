"""A program that uses aiohttp alone: prints its version, and what it gets for each feature."""

import asyncio
import json
import os
import ssl
import sys

import aiohttp
from questions import QUESTION

MODEL, ROUTE = os.environ["LLM_MODEL"], "/chat/completions"
CHAT = {"model": MODEL, "messages": QUESTION}


async def ask(http, path, body=None, **more):
    method = "GET" if body is None else "POST"
    async with http.request(method, os.environ["LLM_URL"] + path, json=body, **more) as answer:
        return json.loads(await answer.text())


async def stream(http):
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.post(os.environ["LLM_URL"] + ROUTE, json=body) as answer:
        events = [
            line.removeprefix(b"data: ") async for line in answer.content if line.startswith(b"data: {")
        ]
    assert json.loads(events[-1])["usage"]["completion_tokens"] > 1
    return events[0].decode()


async def chunked(http):
    async def pieces():
        yield json.dumps(CHAT).encode()

    async with http.post(os.environ["LLM_URL"] + ROUTE, data=pieces()) as answer:
        return json.loads(await answer.text())["error"]["message"]


async def main():
    tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))
    headers = {"Authorization": f"Bearer {os.environ['LLM_KEY']}"}
    async with aiohttp.ClientSession(connector=tls, headers=headers) as http:
        wrong = await ask(http, ROUTE, CHAT, headers={"Authorization": "Bearer sk-no"})
        return {
            "chat": (await ask(http, ROUTE, CHAT))["choices"][0]["message"]["content"],
            "streaming, with usage": await stream(http),
            "models, and one model": (await ask(http, f"/models/{MODEL}"))["id"],
            "10,000 choices": (await ask(http, ROUTE, CHAT | {"n": 10_000}))["error"]["message"],
            "a wrong key": wrong["error"]["message"],
            "a chunked body": await chunked(http),
        }


if __name__ == "__main__":
    json.dump({"version": aiohttp.__version__, "found": asyncio.run(main())}, sys.stdout)
