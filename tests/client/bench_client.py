"""Measure how many events the load generator handles per second of CPU, compared with a general client.

usage: bench_client.py [STREAMS]      the server writes constant answers, over TLS as the gateway does
"""

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from pulumi_vllm.client import load_generator
from pulumi_vllm.client.endpoint import from_url

TOKENS, REQUESTS = 256, 4
EVENT = json.dumps(
    {
        "id": "cmpl-0123456789abcdef0123456789abcdef",
        "object": "text_completion",
        "created": 1764118800,
        "model": "mistral-small-4",
        "choices": [
            {"index": 0, "text": " token", "logprobs": None, "finish_reason": None, "stop_reason": None}
        ],
        "usage": None,
    }
)


def chunk(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(folder: Path) -> None:
    """Answer every request with the same stream, one event per write."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "tls.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].partition(b":")[2]))
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(TOKENS):
                    writer.write(chunk(EVENT))
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(chunk("[DONE]") + b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def ours(url: str, ca: Path, streams: int) -> float:
    load = load_generator.Load(levels=(streams,), output_tokens=TOKENS)
    level = load_generator.Level(streams, streams * REQUESTS, lambda _: None)
    began = time.process_time()
    await load_generator.run(from_url(url, ca), load.bodies("m", level.requests, streams, TOKENS), level)
    assert level.error is None, level.error
    return level.tokens / (time.process_time() - began)


async def theirs(url: str, ca: Path, streams: int) -> float:
    tls, tokens = ssl.create_default_context(cafile=str(ca)), 0
    limits = httpx2.Limits(max_connections=streams)
    bodies = iter(load_generator.Load().bodies("m", streams * REQUESTS, streams, TOKENS))
    async with httpx2.AsyncClient(verify=tls, limits=limits, timeout=60) as client:

        async def stream() -> None:
            nonlocal tokens
            for body in bodies:
                async with client.stream("POST", f"{url}/completions", content=body) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: {"):
                            tokens += bool(json.loads(line[6:])["choices"])

        began = time.process_time()
        await asyncio.gather(*(stream() for _ in range(streams)))
        return tokens / (time.process_time() - began)


def main() -> None:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x"
        files = [
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            folder / "k.pem",
            "-out",
            folder / "c.pem",
        ]
        subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
        (folder / "tls.pem").write_text((folder / "c.pem").read_text() + (folder / "k.pem").read_text())
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", name], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout
            url = f"https://127.0.0.1:{server.stdout.readline().strip()}/v1"
            for title, client in (("ours", ours), ("httpx2", theirs), ("ours", ours), ("httpx2", theirs)):
                rate = asyncio.run(client(url, folder / "c.pem", streams))
                print(f"{title:8} {streams} streams: {rate:9,.0f} events per second of CPU")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        main()
