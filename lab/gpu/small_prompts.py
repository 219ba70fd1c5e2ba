"""On the GPU machine: what one small prompt after another costs the streams that run, with some of the CUDA graphs.

usage: small_prompts.py MODEL STREAMS GRAPHS[,GRAPHS]      (from `measure.py --then`; the names are those of controls.py)

Streams of 1,500 tokens run all the time. Beside them one client asks for 8 tokens after 100 random ones, for 6 s with
each of the graphs. `vllm bench` does not show this: its streams have equal lengths, so they end and begin together.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import threading
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import controls

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT, LONG, SHORT, SECONDS = 100, 1500, 8, 6


def stream(model: str, tokens: int, arrived: Callable[[float], None]) -> None:
    """One completion of a random prompt; each event's time is handed over."""
    connection = HTTPConnection("127.0.0.1", 8000, timeout=120)
    prompt = [random.randrange(1000, 131_000) for _ in range(PROMPT)]
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            arrived(time.monotonic())
    connection.close()


def gaps(events: list[tuple[int, float]]) -> list[float]:
    """Milliseconds between two tokens of one stream, sorted."""
    last: dict[int, float] = {}
    found = []
    for number, at in events:
        if number in last:
            found.append(1000 * (at - last[number]))
        last[number] = at
    return sorted(found)


def main() -> None:
    """Print one line for each of the graphs."""
    model, streams, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
    events: list[tuple[int, float]] = []

    def run(number: int) -> None:
        while True:
            stream(model, LONG, lambda at: events.append((number, at)))

    for number in range(streams):
        threading.Thread(target=run, args=(number,), daemon=True).start()
    time.sleep(4)
    for name in names:
        controls.set_to(f"graphs={name}")
        first, whole, began, before = [], [], time.monotonic(), len(events)
        while time.monotonic() - began < SECONDS:
            asked, at = time.monotonic(), list[float]()
            stream(model, SHORT, at.append)
            first.append(1000 * (at[0] - asked))
            whole.append(1000 * (at[-1] - asked))
        took, found = time.monotonic() - began, gaps(seen := events[before:])
        row = {"graphs": name, "streams": streams, "small": len(first), "rate": round(len(seen) / took)}
        row |= {
            "first_ms": round(statistics.median(first), 1),
            "whole_ms": round(statistics.median(whole), 1),
        }
        row |= {"gap_ms": round(statistics.median(found), 2), "gap_mean_ms": round(statistics.mean(found), 2)}
        print(json.dumps(row | {"gap_p95_ms": round(found[int(len(found) * 0.95)], 2)}), flush=True)
    os._exit(0)  # the streams go on


if __name__ == "__main__":
    main()
