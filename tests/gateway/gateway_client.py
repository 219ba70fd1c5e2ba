"""What a client sends to the gateway, and how its answers are read."""

import asyncio
import json

import attacks
from rendered_gateway import KEYS

KEY, OTHER = KEYS["team-a"], KEYS["team-b"]
LONG_S = 60  # an upper bound for a busy machine; no test waits this long
# Status → `type` and `code` of OpenAI's errors.
ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    408: ("invalid_request_error", "timeout"),
    411: ("invalid_request_error", "length_required"),
    413: ("invalid_request_error", "body_too_large"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "overloaded"),
    504: ("server_error", "timeout"),
}


def openai_error(answer, code=None):
    """Check that an error has the form that OpenAI's clients read, with the type and code of its status."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = json.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    expected = ("invalid_request_error", code) if code else ERRORS[answer.status]
    assert (error["type"], error["code"]) == expected
    return answer


def ask(body, key=KEY, path="/v1/chat/completions"):
    return attacks.request(key, path, body=json.dumps(body).encode())


async def open_stream(gateway, chunks, key=KEY):
    """A running stream whose headers have arrived. The backend sends one chunk per `turn`."""
    reader, writer = await gateway.connect()
    writer.write(ask({"stream": chunks}, key))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG_S)
    assert b" 200 " in head.split(b"\r\n")[0]
    return reader, writer


async def next_chunk(reader):
    size = int(await asyncio.wait_for(reader.readline(), LONG_S), 16)
    data = await asyncio.wait_for(reader.readexactly(size + 2), LONG_S)
    return data[:-2]


async def until(true):
    for _ in range(LONG_S * 100):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {LONG_S} s")


def waiting(gateway):
    """Requests that wait in HAProxy for a place in the engine."""
    names, *rows = gateway.command("show stat vllm -1 -1").removeprefix("# ").strip().splitlines()
    at = names.split(",").index("qcur")
    return sum(int(row.split(",")[at]) for row in rows)
