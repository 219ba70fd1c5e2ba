"""What the gateway adds to a token: `python tests/gateway/bench_gateway.py [TOKENS]`; times in milliseconds.

A backend sends one chunk every 20 ms and notes when; a client notes when it has it, through TLS and every rule of the
rendered haproxy.cfg. Both clocks are this computer's.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import attacks
from rendered_gateway import KEYS, Gateway

EVERY_S = 0.02


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of streams: the time of sending is the chunk's content."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"GET /health " in head:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    else:
        asked = json.loads(
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        )
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(asked["stream"]):
            await asyncio.sleep(EVERY_S)
            data = b"data: %.9f\n\n" % time.perf_counter()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int) -> list[float]:
    """Milliseconds from sending to having, chunk by chunk."""
    writer.write(attacks.request(KEYS["team-a"], body=json.dumps({"stream": tokens}).encode()))
    await reader.readuntil(b"\r\n\r\n")
    found = []
    while size := int(await reader.readline(), 16):
        data = await reader.readexactly(size + 2)
        found.append((time.perf_counter() - float(data.split()[1])) * 1000)
    writer.close()
    return found


async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """Milliseconds from asking on an open connection to having the first token, of which the engine waits 20."""
    began = time.perf_counter()
    writer.write(attacks.request(KEYS["team-a"], body=json.dumps({"stream": 1}).encode()))
    await reader.readuntil(b"data: ")
    found = (time.perf_counter() - began) * 1000
    writer.close()
    return found


async def main(tokens: int, folder: Path) -> None:
    """Direct and through the gateway, three rounds each, in turns; then the first token, in pairs."""
    server = await asyncio.start_server(send, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = await asyncio.to_thread(Gateway(folder, port).__enter__)
    try:
        for _ in range(3):
            direct = await receive(*await asyncio.open_connection("127.0.0.1", port), tokens)
            through = await receive(*await gateway.connect(), tokens)
            for name, times in (("direct", direct), ("through the gateway", through)):
                ninety_nine = statistics.quantiles(times, n=100)[98]
                print(
                    f"{name:17} median {statistics.median(times):.2f} ms, p99 {ninety_nine:.2f}, {len(times)} tokens"
                )
        pairs = []
        for _ in range(tokens):
            direct_ms = await first(*await asyncio.open_connection("127.0.0.1", port))
            pairs.append(await first(*await gateway.connect()) - direct_ms)
        print(f"first token: {statistics.median(pairs):+.2f} ms in the median of {len(pairs)} pairs")
    finally:
        await asyncio.to_thread(gateway.__exit__)
        server.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, Path(place)))
