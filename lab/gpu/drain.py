"""Stop the server while streams run, and record which finish, what new requests get, and when the process ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess


def post(port: int, path: str, body: dict[str, Any], timeout_s: float = 120) -> tuple[int, str]:
    """Status and text of one JSON request; status 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except OSError as error:
        return 0, repr(error)
    finally:
        connection.close()


def health(port: int) -> int:
    """Status of /health; 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class Stream(threading.Thread):
    """One streamed completion that counts what arrives."""

    def __init__(self, port: int, name: str, number: int, tokens: int) -> None:
        super().__init__(daemon=True)
        self.port, self.tokens = port, tokens
        self.body = {"model": name, "prompt": f"Stream {number}: " + "count on " * 200, "max_tokens": tokens}
        # No seed: vLLM would draw for each seeded stream on its own (0.35 ms a step at 128, one H200).
        self.body |= {"stream": True, "ignore_eos": True, "temperature": 0.7}
        self.body |= {"stream_options": {"include_usage": True}}
        self.got, self.done, self.error, self.ended = 0, False, "", 0.0

    def run(self) -> None:
        """Read to the end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(
                "POST", "/v1/completions", json.dumps(self.body), {"Content-Type": "application/json"}
            )
            for raw in connection.getresponse():
                line = raw.decode(errors="replace").strip()
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    self.error = str(event["error"])[:200] if "error" in event else self.error
                    self.got = (event.get("usage") or {}).get("completion_tokens", self.got)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = repr(error)[:200]
        finally:
            self.ended = time.monotonic()
            connection.close()


def drain(
    server: subprocess.Popen[Any], port: int, name: str, count: int, tokens: int = 512
) -> dict[str, Any]:
    """SIGTERM to the main process, as systemd sends it with KillMode=mixed, three seconds into `count` streams."""
    streams = [Stream(port, name, number, tokens) for number in range(count)]
    for stream in streams:
        stream.start()
    time.sleep(3)
    stopped = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    while_draining: list[dict[str, Any]] = []
    gone: float | None = None
    while time.monotonic() - stopped < 90:
        at = round(time.monotonic() - stopped, 1)
        if server.poll() is not None:
            gone = at
            break
        status, text = post(port, "/v1/completions", {"model": name, "prompt": "hi", "max_tokens": 1}, 3)
        while_draining.append(
            {"after_s": at, "health": health(port), "new_request": status, "text": text[:120]}
        )
        time.sleep(1)
    for stream in streams:
        stream.join(5)
    ended = [stream.ended - stopped for stream in streams if stream.done]
    return {
        "streams": count,
        "tokens_each": tokens,
        "finished": sum(stream.done and stream.got == tokens and not stream.error for stream in streams),
        "cut": [
            {"tokens": stream.got, "error": stream.error}
            for stream in streams
            if stream.error or not stream.done
        ],
        "last_stream_ended_s": round(max(ended), 1) if ended else None,
        "process_gone_s": gone,
        "exit_code": server.poll(),
        "while_draining": while_draining,
    }
