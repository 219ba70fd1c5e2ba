"""Requests with images: who is answered, how fast, and what the cards hold afterwards."""

from __future__ import annotations

import base64
import json
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import drain
from server import used_mib


def png(width: int, height: int, seed: str) -> str:
    """A data URL; every seed is another image, so that no cache of vLLM's answers for it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + random.Random(seed).randbytes(3 * width)  # filter 0, then RGB
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * height, 1)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def first_token(answer: str) -> list[list[Any]]:
    """The likeliest first tokens of an answer and their logarithms, to compare two servers by; empty without one."""
    try:
        top = json.loads(answer)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    except (ValueError, LookupError, TypeError):
        return []
    return [[one["token"], round(one["logprob"], 4)] for one in top]


def send(port: int, model: str, text: str) -> dict[str, Any]:
    """`WIDTHxHEIGHT:A_REQUEST:REQUESTS:STREAMS`: so many images in each of so many requests, so many at once."""
    size, each, requests, streams = (text.split(":") + ["5", "16", "4"][text.count(":") :])[:4]
    width, height = (int(side) for side in size.split("x"))

    def one(number: int) -> tuple[int, str, float]:
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": png(width, height, f"{text} {number} {place}")}}
            for place in range(int(each))
        ]
        parts.append({"type": "text", "text": f"{number}"})
        body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 8}
        body |= {"temperature": 0, "logprobs": True, "top_logprobs": 3}
        began = time.monotonic()
        status, answer = drain.post(port, "/v1/chat/completions", body)
        return status, answer, time.monotonic() - began

    began = time.monotonic()
    with ThreadPoolExecutor(int(streams)) as pool:
        answers = list(pool.map(one, range(int(requests))))
    took = time.monotonic() - began
    seconds = sorted(taken for status, _, taken in answers if status == 200)
    return {
        "images": text,
        "requests": len(answers),
        "answered": len(seconds),
        "median_s": round(seconds[len(seconds) // 2], 2) if seconds else None,
        "images_per_s": round(len(seconds) * int(each) / took, 1),
        "refused": sorted({f"{status} {answer[:200]}" for status, answer, _ in answers if status != 200})[:3],
        "first_token": first_token(answers[0][1]),
        "health": drain.health(port),
        "memory_used_mib": used_mib(),
    }
