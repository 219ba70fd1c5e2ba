"""A fake engine behind the gateway that records every request, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Request:
    """One request as the gateway forwarded it."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    @property
    def rid(self) -> str:
        return ",".join(self.values("x-request-id"))


@dataclass
class Backend:
    """Answers on a loopback port, in its own thread. The JSON body of a request selects the behaviour.

    `{"stream": N}`: N chunks, each sent after one more call of `turn`. `{"hold": true}`: no answer until the client
    disconnects, which sets `gone`. `{"flood": true}`: an endless answer until the client disconnects, which sets
    `gone`. `{"wait": true}`: the default answer after one more call of `turn`. `{"raw": TEXT}`: this text, then the
    connection is closed. Any other body: the default answer.
    """

    requests: list[Request] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    healthy: bool = True
    health_s: float = 0.0
    """How late it answers a health check."""
    port: int = 0

    def __enter__(self) -> Self:
        self._loop, self._turns = asyncio.new_event_loop(), asyncio.Semaphore(0)
        self._links: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=1 << 20, backlog=1024)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def turn(self) -> None:
        """Release one more chunk."""
        self._loop.call_soon_threadsafe(self._turns.release)

    async def _stop(self) -> None:
        self._server.close()
        # A connection that is being accepted has no writer yet that could close it, so its task must end by itself.
        accepting = asyncio.all_tasks() - {asyncio.current_task()} - set(self._links.values())
        await asyncio.gather(*accepting, return_exceptions=True)
        serving = list(self._links.values())
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for writer in self._links:  # a task cancelled before its first step has not closed its connection
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links[writer] = self._loop.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                request = await self._read(reader)
                if request.line.startswith("GET /health "):
                    await asyncio.sleep(self.health_s)
                    self._write(writer, "200 OK" if self.healthy else "503 Not Ready", b"{}")
                else:
                    self.requests.append(request)
                    await self._answer(request, reader, writer)
                await writer.drain()
        writer.close()
        del self._links[writer]

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        line, *rows = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (row.partition(":")[::2] for row in rows)
        headers = tuple((name.lower(), value.strip()) for name, value in pairs)
        known = dict(headers)
        assert "transfer-encoding" not in known, "the gateway requires a Content-Length"
        return Request(line, headers, await reader.readexactly(int(known.get("content-length", "0"))))

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            asked = dict(json.loads(request.body))
        except (ValueError, TypeError):
            asked = {}
        if asked.get("hold"):
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until the connection ends
            self.gone.set()
            raise ConnectionError
        if asked.get("flood"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            self.gone.set()
            raise ConnectionError
        if "raw" in asked:
            writer.write(asked["raw"].encode())
            await writer.drain()
            raise ConnectionError
        if asked.get("wait"):
            await self._turns.acquire()
        if not asked.get("stream"):
            self._write(writer, "200 OK", json.dumps({"line": request.line}).encode())
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(asked["stream"]):
            await self._turns.acquire()
            data = b'data: {"n":%d}\n\n' % number
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    @staticmethod
    def _write(writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status}\r\nServer: uvicorn\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
