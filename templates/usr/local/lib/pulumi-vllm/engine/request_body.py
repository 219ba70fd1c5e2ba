"""The body of a request: received within its time, and read as JSON that vLLM can read too."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from refusals import TOO_SLOW, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[dict[str, Any]]]

_BODY_TIMEOUT = b"x-body-timeout"
"""The gateway's header with the seconds that a client has for its body, and one more for each MiB."""

_CHARACTERS_PER_SIGN = 8
"""To read an object, a list or a key costs as much as so many characters or more: 3 million `{}` kept others waiting
for 9.6 s, and 14 MB of text for 5 s (0.32.0 on a CPU)."""

_SURROGATE, _LONG_NUMBER = re.compile(rb"\\u[dD][89a-fA-F]"), re.compile(rb"[0-9]{19}")
_MOST_BITS = 63


async def body_in_time(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes | None:
    """The body of a request; None if the client has gone. Refused if it takes longer than the gateway allows.

    The gateway waits for the first 32 KiB only. A request whose body arrives byte by byte would keep its place in the
    engine for as long as its client likes.
    """
    within_s = headers.get(_BODY_TIMEOUT)
    if within_s is None:  # past the gateway: the canary
        return await _whole_body(receive)
    seconds = int(within_s) + int(headers.get(b"content-length", b"0")) / 2**20
    try:
        return await asyncio.wait_for(_whole_body(receive), seconds)
    except asyncio.TimeoutError:  # noqa: UP041 - two classes before Python 3.11
        message = f"the body did not arrive within {seconds:.0f} s (request_timeout_s, and one for each MiB)"
        raise Refused("body", message, TOO_SLOW) from None


async def _whole_body(receive: Receive) -> bytes | None:
    """The body of a request; None if the client has gone. The gateway has limited its size."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def check_signs(raw: bytes, characters: int) -> None:
    """Refuse more objects, lists and keys than fit `characters` before they are read. Text may hold the same signs."""
    signs = sum(raw.count(sign) for sign in b"{[:")
    most = characters // _CHARACTERS_PER_SIGN
    if signs > most:
        message = f"{signs:,} objects, lists and keys, or signs of them in texts, are more than the {most:,}"
        raise Refused("body", f"{message} that this server allows in one request")


def parsed(raw: bytes) -> tuple[Any, bool]:
    """The JSON of a request, and whether it was changed.

    Raises JSONDecodeError, or Refused for what vLLM would answer with status 500 or in no API's form.
    """
    try:
        body = json.loads(raw)
        if _LONG_NUMBER.search(raw):
            json.loads(raw, parse_int=_checked_number)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise Refused("body", "the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise Refused("body", "the JSON is not encoded in UTF-8") from None
    except ValueError:  # from _checked_number, or because Python reads 4,300 digits
        raise Refused("body", f"a whole number has more than {_MOST_BITS} bits") from None
    if not _SURROGATE.search(raw):
        return body, False
    # Half of a character, as of a text that was cut, stops the engine's messages. Both halves together are a character.
    text = json.dumps(body, ensure_ascii=False)
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return (body, False) if whole == text else (json.loads(whole), True)


def _checked_number(digits: str) -> int:
    number = int(digits)
    if number.bit_length() > _MOST_BITS:
        raise ValueError
    return number
