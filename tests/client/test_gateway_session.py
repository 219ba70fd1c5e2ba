"""Streams that servers cut into pieces at any place."""

import asyncio
import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pulumi_vllm.client.endpoint import Endpoint
from pulumi_vllm.client.errors import AnswerInterrupted, ClientError, RequestRefused
from pulumi_vllm.client.gateway_session import GatewaySession

EVENTS = [{"choices": [{"text": text}]} for text in ("a", "b\u00e9", "c")]
LINES = "".join(f"data: {json.dumps(one, ensure_ascii=False)}\n\n" for one in EVENTS)
WHOLE = f": a comment\n\n{LINES}data: [DONE]\n\n".encode()


async def ask(body: bytes, cuts: list[int], *, chunked: bool, times: int = 1, closes: bool = False) -> list:
    """Send `times` requests over one connection. Each answer is that body, in pieces that end at the cuts."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[first:last] for first, last in itertools.pairwise(places)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(1 if closes else times):
                await reader.readuntil(b"}")
                kind = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
                more = "Connection: close\r\n" if closes else ""
                writer.write(f"HTTP/1.1 200 OK\r\n{kind}\r\n{more}\r\n".encode())
                for piece in pieces:
                    writer.write(b"%x;x=y\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await writer.drain()
                writer.write(b"0\r\nTrailer: x\r\n\r\n" if chunked else b"")
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        async with GatewaySession(Endpoint(url, "x")) as gateway:
            return [[event async for event in gateway.events("/completions", b"{}")] for _ in range(times)]
    finally:
        server.close()
        await server.wait_closed()


@settings(max_examples=60)
@example(cuts=[len(WHOLE) - 1], chunked=True)  # between [DONE] and its blank line
@given(cuts=st.lists(st.integers(0, 1000), max_size=8), chunked=st.booleans())
def test_events_are_complete_wherever_the_stream_is_cut(cuts, chunked):
    assert asyncio.run(ask(WHOLE, cuts, chunked=chunked, times=2)) == [EVENTS, EVENTS]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (LINES.encode(), AnswerInterrupted),
        (b"data: {\n\n", AnswerInterrupted),
        (b"data: [1]\n\n", AnswerInterrupted),
        (b"", AnswerInterrupted),
        (
            b'data: {"error": {"message": "The engine is shutting down", "code": 500}}\n\ndata: [DONE]\n\n',
            RequestRefused,
        ),
        (b'data: {"error": "odd"}\n\n', RequestRefused),
    ],
)
def test_an_incomplete_stream_is_an_error(body, kind):
    with pytest.raises(ClientError) as error:
        asyncio.run(ask(body, [], chunked=True))
    assert type(error.value) is kind


def test_a_closed_connection_is_opened_again():
    assert asyncio.run(ask(WHOLE, [9], chunked=True, times=3, closes=True)) == [EVENTS] * 3
