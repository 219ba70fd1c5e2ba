"""Counts the tokens of each API key, and refuses requests of a key that has used its tokens of a minute.

The gateway says in headers, which clients cannot set, whose request it is and how many tokens the key has in 60 s.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Message = dict[str, Any]
    Send = Callable[[Message], Awaitable[None]]

_KEY, _LIMIT = b"x-key-id", b"x-key-tokens"
_CHARACTERS_PER_TOKEN = 4  # of English text; vLLM's own count replaces the estimate
_USAGE, _LONGEST_USAGE = b'"usage":', 4096  # within JSON texts the quotes are escaped
_INPUT = ("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_ERROR = 400


class KeyTokens:
    """What each key has left. It comes back evenly, and a request may take more than is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._left: dict[bytes, tuple[float, float]] = {}

    def request(self, headers: Mapping[bytes, bytes]) -> Counted | None:
        """One request of a key; None for a key without a limit."""
        limit = headers.get(_LIMIT)
        return Counted(self, headers.get(_KEY, b""), int(limit)) if limit else None

    def left(self, key: bytes, limit: int) -> float:
        """Tokens that a key has left; below 0 if it has taken more than it had."""
        now = self.clock()
        left, then = self._left.get(key, (float(limit), now))
        left = min(float(limit), left + (now - then) * limit / 60)
        self._left[key] = left, now
        return left

    def take(self, key: bytes, limit: int, tokens: float) -> None:
        """Take tokens, or give some back."""
        self._left[key] = self.left(key, limit) - tokens, self.clock()


class Counted:
    """One request of a key that has a limit."""

    def __init__(self, tokens: KeyTokens, key: bytes, limit: int) -> None:
        self.tokens, self.key, self.limit = tokens, key, limit
        self.taken = self.input = self.output = 0
        self.known = self.streamed = False
        self.began = tokens.clock()
        self.hide_usage = False
        """Whether the client did not ask for the usage that it would get at the end of a stream."""

    def wait_s(self) -> int:
        """Seconds until the key has tokens again; 0 if it has some."""
        left = self.tokens.left(self.key, self.limit)
        return 0 if left > 0 else math.floor(-left * 60 / self.limit) + 1

    def start(self, characters: int) -> None:
        """Take what the prompt probably has, so that many requests at once don't pass together."""
        self._take(characters // _CHARACTERS_PER_TOKEN, 0)

    def end(self) -> None:
        """A client that left before its whole answer takes what the key has in that time: nobody counted the answer."""
        if not self.known and not self.streamed:
            self._take(self.input, math.ceil((self.tokens.clock() - self.began) * self.limit / 60))

    def _take(self, prompt: int, answer: int) -> None:
        self.input, self.output = prompt, answer
        self.tokens.take(self.key, self.limit, prompt + answer - self.taken)
        self.taken = prompt + answer

    def ask_for_usage(self, body: Message) -> bool:
        """Let vLLM say at the end of a stream what it took. Returns whether the request was changed."""
        options = body.get("stream_options")
        if not body.get("stream") or (isinstance(options, dict) and options.get("include_usage") is True):
            return False
        if options is not None and not isinstance(options, dict):
            return False  # vLLM refuses it
        body["stream_options"] = {**(options or {}), "include_usage": True, "continuous_usage_stats": False}
        self.hide_usage = True
        return True

    def counting(self, send: Send) -> Send:
        """A function that sends the answer on and counts it."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                self.streamed = any(
                    value.startswith(b"text/event-stream")
                    for name, value in headers
                    if name == b"content-type"
                )
                if message["status"] >= _ERROR:
                    self.known = True
                    self._take(0, 0)
                left = str(max(0, int(self.tokens.left(self.key, self.limit)))).encode()
                more = [
                    (b"x-ratelimit-limit-tokens", str(self.limit).encode()),
                    (b"x-ratelimit-remaining-tokens", left),
                ]
                message = {**message, "headers": [*headers, *more]}
            elif body := message.get("body"):
                self._count(body)
                if self.streamed and self.hide_usage:
                    message = {**message, "body": _without_usage(body)}
            await send(message)

        return counted

    def _count(self, body: bytes) -> None:
        usage = _usage(body)
        if usage is not None:
            self.known = True
            self._take(usage[0] or self.input, usage[1] or self.output)
        elif self.streamed:
            self._take(self.input, self.output + body.count(b"data: {"))  # at least one token each


def _usage(body: bytes) -> tuple[int, int] | None:
    """Tokens in and out as vLLM counted them, from an answer or a piece of a stream."""
    at = body.rfind(_USAGE)
    if at < 0:
        return None
    text = body[at + len(_USAGE) :][:_LONGEST_USAGE].decode(errors="replace").lstrip()
    try:
        found = json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return _sum(found, _INPUT), _sum(found, _OUTPUT)


def _sum(usage: Message, names: tuple[str, ...]) -> int:
    return sum(value for value in map(usage.get, names) if isinstance(value, int))


def _without_usage(body: bytes) -> bytes:
    """A piece of a stream without the event that holds the usage alone."""
    events = body.split(b"\n\n")
    return b"\n\n".join(
        event for event in events if not (_USAGE in event and b'"choices":[]' in event.replace(b" ", b""))
    )
