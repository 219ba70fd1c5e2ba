"""HTTP/1.1 to a gateway: one connection per stream, kept, server-sent events, refusals as sentences.

Written on asyncio's streams because a load of 256 streams is thousands of events a second, which the clock of
a general client would lag behind (docs/bench.md has the figures). No proxy, no redirect: a gateway has neither.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pulumi_vllm.client import __name__ as package
from pulumi_vllm.client.endpoint import KEY_VARIABLE
from pulumi_vllm.client.errors import ClientError, Cut, Refused, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pulumi_vllm.client.endpoint import Endpoint

CONNECT_S = 10.0
LONGEST_SILENCE_S = 3600.0  # where no plan says after how long the gateway itself gives up
_GRACE_S = 60.0  # the gateway's own answer comes first
_LONGEST_LINE = 1 << 24  # bytes: one event of a long tool call, or a whole answer
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404
_REMEDIES = {
    413: "the request is larger than the gateway lets in (413); raise server.gateway.max_body_mib in the stack file",
    429: "the gateway's limit for one key is reached (429); raise server.gateway.requests_per_minute, or "
    "server.gateway.streams_per_key, in the stack file and run `pulumi up`",
    504: "the engine did not answer in time (504); raise server.gateway.answer_timeout_s in the stack file",
    503: "nothing is served right now (503: {said}); the engine starts, drains or has ended",
}


class Connection:
    """One connection to the endpoint; it opens by itself and is kept until something breaks."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Open nothing yet."""
        self.endpoint, self._where = endpoint, urlsplit(endpoint.url)
        limit = (endpoint.plan.get("gateway") or {}).get("answer_timeout_s")
        self._silence_s = LONGEST_SILENCE_S if limit is None else float(limit) + _GRACE_S
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    async def open(self) -> None:
        """Connect, unless it is.

        Raises:
            ClientError: nobody answers there, or it is not who it should be.
        """
        if self._streams:
            return
        tls, secure = self.endpoint.tls, self._where.scheme == "https"
        port = self._where.port or (443 if secure else 80)
        with self._told():
            async with asyncio.timeout(CONNECT_S):
                self._streams = await asyncio.open_connection(
                    self._where.hostname, port, ssl=tls, limit=_LONGEST_LINE
                )

    def close(self) -> None:
        """Disconnect at once."""
        if self._streams:
            self._streams[1].transport.abort()
            self._streams = None

    async def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A whole answer.

        Raises:
            Refused: the status is not 200.
            ClientError: no answer, or one that is not JSON.
        """
        text = b"".join([piece async for piece in self._answer(method, path, encode(body) if body else b"")])
        try:
            return json.loads(text)
        except ValueError:
            said = printable(text.decode(errors="replace"))
            raise ClientError(
                f"{self.endpoint.url}{path}: the answer is not JSON ({said}); is this the API's address?"
            ) from None

    async def events(self, path: str, body: bytes) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed answer, as they come.

        Raises:
            Refused: the status is not 200, or an event says that the engine gave up.
            Cut: the stream ended before its [DONE].
        """
        rest, done = b"", False
        async for piece in self._answer("POST", path, body):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    done = True
                    continue
                event = self._event(data, path)
                if "error" in event:
                    raise self._refused(500, data, path)
                yield event
        if not done:
            self.close()
            raise Cut(f"{self.endpoint.url}{path}: the stream ended before its [DONE]")

    def _event(self, data: bytes, path: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            said = printable(data.decode(errors="replace"))
            raise Cut(f"{self.endpoint.url}{path}: an event of the stream is no JSON object ({said})")
        return event

    async def _answer(self, method: str, path: str, body: bytes) -> AsyncIterator[bytes]:
        await self.open()
        assert self._streams  # noqa: S101 - open() raises otherwise
        reader, writer = self._streams
        whole = False
        try:
            with self._told(path):
                writer.write(self._head(method, path, len(body)) + body)
                async with asyncio.timeout(self._silence_s):
                    with suppress(
                        ConnectionError
                    ):  # who refuses a body need not read it: the answer is there
                        await writer.drain()
                    status, headers = await _read_head(reader)
                    text = b"" if status == _OK else await _whole(reader, headers)
                if status != _OK:
                    whole = True
                    raise self._refused(status, text, path)
            pieces = _pieces(reader, headers)
            while True:
                with self._told(path):
                    async with asyncio.timeout(self._silence_s):
                        piece = await anext(pieces, None)
                if piece is None:
                    break
                yield piece
            whole = headers.get("connection", "").lower() != "close"
        finally:
            if not whole:
                self.close()

    def _head(self, method: str, path: str, length: int) -> bytes:
        key = self.endpoint.key
        lines = [
            f"{method} {self._where.path}{path} HTTP/1.1",
            f"Host: {self._where.netloc}",
            f"User-Agent: {package.partition('.')[0]}",
            "Accept: */*",
            *([f"Authorization: Bearer {key}"] if key else []),
            *(["Content-Type: application/json", f"Content-Length: {length}"] if length else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _refused(self, status: int, text: bytes, path: str) -> Refused:
        try:
            answer = json.loads(text)
            error = answer.get("error", answer.get("detail", answer))
            said = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            said = text.decode(errors="replace")
        said = printable(said)
        return Refused(f"{self.endpoint.url}{path}: {self._remedy(status, said)}", status, said)

    def _remedy(self, status: int, said: str) -> str:
        stack, key = self.endpoint.stack, self.endpoint.key
        if status == _UNAUTHORIZED and stack:
            return f"the key of stack {stack} was refused (401); the gateway has other keys, run `pulumi up`"
        if status == _UNAUTHORIZED:
            what = f"the key in {KEY_VARIABLE} was refused" if key else "a key is needed"
            return f"{what} (401); export the right one as {KEY_VARIABLE}"
        if status == _NOT_FOUND and "model" in said.lower():
            return f"the model is not served here (404: {said})"
        return _REMEDIES.get(status, "refused with status {status}: {said}").format(status=status, said=said)

    @contextmanager
    def _told(self, path: str = "") -> Iterator[None]:
        """Faults of the network as sentences; of an answer that has begun, as Cut."""
        url = f"{self.endpoint.url}{path}"
        try:
            yield
        except ssl.SSLCertVerificationError as fault:
            with_ca = (
                "its state is older than the gateway: run `pulumi refresh`"
                if self.endpoint.stack
                else ("name the CA that signed it with --ca FILE")
            )
            raise ClientError(
                f"{url}: the certificate is not to be trusted ({fault.verify_message}); {with_ca}"
            ) from None
        except ssl.SSLError as fault:
            raise ClientError(f"{url}: does not speak TLS as it should ({fault.reason})") from None
        except socket.gaierror as fault:
            raise ClientError(f"{url}: {self._where.hostname} has no address ({fault.strerror})") from None
        except TimeoutError:
            if path:
                raise Cut(f"{url}: silent for {self._silence_s:.0f} s") from None
            raise ClientError(
                f"{url}: no connection within {CONNECT_S:.0f} s; is this machine in server.access.allow, is it up?"
            ) from None
        except asyncio.IncompleteReadError:
            meant = "" if self.endpoint.tls else "; is https meant?"
            raise Cut(f"{url}: the connection ended before the end of an answer{meant}") from None
        except (ValueError, asyncio.LimitOverrunError):
            raise Cut(
                f"{url}: the answer is not framed as HTTP/1.1 has it; is this the API's address?"
            ) from None
        except OSError as fault:
            raise _broken(fault, url, begun=bool(path)) from None


def _broken(fault: OSError, url: str, *, begun: bool) -> ClientError:
    said = fault.strerror or fault
    if fault.errno in {errno.EMFILE, errno.ENFILE}:
        remedy = "raise `ulimit -n`, or ask for fewer streams"
        return ClientError(f"{url}: this machine lets no more connections be opened ({said}); {remedy}")
    if begun:
        return Cut(f"{url}: the connection broke ({said})")
    return ClientError(f"{url}: nobody answers ({said}); is the stack up?")


def encode(body: dict[str, Any]) -> bytes:
    """JSON as it is sent."""
    return json.dumps(body).encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdecimal():
        raise ValueError(first)
    pairs = (line.partition(":") for line in lines)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes, by whichever of HTTP/1.1's three framings."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := int((await _line(reader)).partition(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        while await _line(reader):
            pass
    elif "content-length" in headers:
        if length := int(headers["content-length"]):
            yield await reader.readexactly(length)
    else:
        while piece := await reader.read(1 << 16):
            yield piece


async def _whole(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    return b"".join([piece async for piece in _pieces(reader, headers)])


async def _line(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n"))[:-2]
