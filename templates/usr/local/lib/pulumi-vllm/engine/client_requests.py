"""An ASGI middleware of vLLM that adapts requests of today's clients, and refuses those that would block all others.

vLLM loads it with --middleware. PULUMI_VLLM_REQUESTS names its configuration. It needs the standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import mistral_messages
import quiet_log
import server_repairs
from key_answers import KeyAnswers, TooManyAnswers
from key_tokens import KeyTokens
from shutdown_errors import UntilShutdown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from key_tokens import Counted

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

_CHATS = ("/v1/chat/completions", "/tokenize")
_MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
_READ = (*_CHATS, *_MESSAGES, "/v1/completions", "/v1/responses", "/detokenize")
_FREE = ("/tokenize", "/detokenize", "/v1/messages/count_tokens")
"""Routes that take no tokens of the model."""
_STREAMS = ("/v1/chat/completions", "/v1/completions")
"""Routes whose streams hold the usage only if a client asks for it."""
_ORDERED = (*_STREAMS, "/v1/responses")
"""Routes whose requests may hold a priority."""
_ONE_MODEL = "/v1/models/"
_BAD_REQUEST, _TOO_SLOW, _MANY_REQUESTS = 400, 408, 429
_SOON_S = 5
"""As the gateway says of requests beyond `concurrent`."""

_BODY_TIMEOUT = b"x-body-timeout"
"""The gateway's header with the seconds that a client has for its body, and one more for each MiB."""

_CHARACTERS_PER_TOKEN = 4  # as in key_tokens.py
_CHARACTERS_PER_SIGN = 8
"""To read an object, a list or a key costs as much as so many characters or more: 3 million `{}` kept others waiting
for 9.6 s, and 14 MB of text for 5 s (0.32.0 on a CPU)."""

_SURROGATE, _LONG_NUMBER = re.compile(rb"\\u[dD][89a-fA-F]"), re.compile(rb"[0-9]{19}")
_MOST_BITS = 63

_MEDIA = ("image_url", "audio_url", "video_url", "input_audio")
"""Keys of a content part whose value is a file: an address, or the file itself as base64."""

_NO_PARTS = ("tools", "metadata", "response_format", "structured_outputs", "text", "output_config")
"""Keys of a request that hold no content parts, so that `image_url` means something else there."""

_SCHEMAS = (
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_grammar", "guided_choice",
)  # fmt: skip
_STATE = ("previous_response_id", "conversation", "background")
_OBJECTS = ("structured_outputs",)
"""Keys whose value vLLM expects to be an object: another one ends in status 500."""


class Refused(Exception):  # noqa: N818 - an answer to a client
    """A request that gets status 400, 404 (unknown model), 408 (slow body), or 429 (a key without tokens)."""

    def __init__(self, parameter: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.parameter, self.message, self.status = parameter, message, status

    def body(self, path: str) -> bytes:
        """The error in the format of the API that the path belongs to."""
        kind, answer = "invalid_request_error", {}  # type: str, Message
        many = self.status == _MANY_REQUESTS
        if path in _MESSAGES:
            kind = "rate_limit_error" if many else kind
            answer = {"type": "error", "error": {"type": kind, "message": self.message}}
        elif many:
            error = {"message": self.message, "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
            answer = {"error": error}
        else:
            refusal = {"message": self.message, "type": kind, "param": self.parameter, "code": self.status}
            answer = {"error": refusal}
        return json.dumps(answer).encode()


@dataclass
class Content:
    """What a request holds, without the media that are sent inside it."""

    characters: int = 0
    keys: int = 0
    """Characters of the keys of objects."""
    media: int = 0
    addresses: list[str] = field(default_factory=list)


class ClientRequests:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self.app = UntilShutdown(app)
        self.settings: Message = json.loads(Path(os.environ["PULUMI_VLLM_REQUESTS"]).read_text())
        self.tokens = KeyTokens()
        self.answers = KeyAnswers(self.settings["places"])
        server_repairs.apply()
        quiet_log.install()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, adapted or as it is, or refuse it."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "GET" and path.startswith(_ONE_MODEL):
            await self._one_model(scope, receive, send)
        elif scope["method"] == "POST":
            counted = None if path in _FREE else self.tokens.request(dict(scope["headers"]))
            await self._post(scope, receive, send, counted)
        else:
            await self.app(scope, receive, send)

    async def _post(self, scope: Message, receive: Receive, send: Send, counted: Counted | None) -> None:
        path = scope["path"]
        if counted is None:
            await self._read(scope, receive, send, None)
        elif wait_s := counted.wait_s():
            message = f"This key may use {counted.limit:,} tokens in 60 s (tokens_per_minute). Try again in {wait_s} s."
            refused = Refused("", message, _MANY_REQUESTS)
            await _answer(send, refused.status, refused.body(path), wait_s)
        else:
            send = counted.counting(send)
            try:
                await self._read(scope, receive, send, counted)
            finally:
                counted.end()

    async def _read(self, scope: Message, receive: Receive, send: Send, counted: Counted | None) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        try:
            raw = await _body_in_time(receive, headers)
            if raw is None:
                return  # the client has gone
            adapted, answers = raw, 1
            if path in _READ:
                adapted, answers = self._adapted(path, raw, headers, counted)
            pending: list[Message] = [{"type": "http.request", "body": adapted, "more_body": False}]

            async def replay() -> Message:
                # Later messages tell that the client has gone.
                return pending.pop() if pending else await receive()

            with self.answers.running(headers, 0 if path in _FREE else answers):
                await self.app(scope if adapted is raw else _with_length(scope, len(adapted)), replay, send)
        except TooManyAnswers as many:
            status, wait_s = (_MANY_REQUESTS, _SOON_S) if many.later else (_BAD_REQUEST, 0)
            await _answer(send, status, Refused("n", many.message, status).body(path), wait_s)
        except Refused as refused:
            await _answer(send, refused.status, refused.body(path))

    def _adapted(
        self, path: str, raw: bytes, headers: dict[bytes, bytes], counted: Counted | None
    ) -> tuple[bytes, int]:
        """What vLLM gets, which is `raw` itself if nothing changes, and how many answers it asks for."""
        self._check_signs(raw)
        try:
            body, changed = _parsed(raw)
        except json.JSONDecodeError:
            return raw, 1  # vLLM says what is wrong with it
        if not isinstance(body, dict):
            return raw, 1
        changed |= self.adapt(path, body)
        characters = self.check(path, body)
        if path in _ORDERED:
            changed |= _set_priority(body, headers)
        if counted is not None:
            counted.start(characters)
            changed |= path in _STREAMS and counted.ask_for_usage(body)
        return json.dumps(body).encode() if changed else raw, max(1, _choices(body))

    def adapt(self, path: str, body: Message) -> bool:
        """Change what this model's tokenizer or vLLM refuses. Returns whether anything was changed."""
        responses = path == "/v1/responses"
        changed = self._adapt_messages(body.get("input" if responses else "messages"), responses=responses)
        if path in _CHATS and body.get("tools") == []:
            del body["tools"]
            if body.get("tool_choice") in (None, "auto", "none"):
                body.pop("tool_choice", None)
            changed = True
        if path in _MESSAGES:
            return self._adapt_thinking(body) or changed
        holder: Any = body.get("reasoning") if responses else body
        key = "effort" if responses else "reasoning_effort"
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            known = self.settings["reasoning_efforts"].get(holder[key])
            if known is not None:
                holder[key], changed = known, True
        return changed

    def _adapt_messages(self, value: Any, *, responses: bool) -> bool:
        messages, changed, role = list(_dictionaries(value)), False, self.settings["developer_role"]
        if self.settings["mistral_tokenizer"]:
            try:
                changed = mistral_messages.adapt(messages, responses=responses)
            except mistral_messages.Unknown as unknown:
                raise Refused("input", str(unknown)) from None
        for message in messages:
            if message.get("role") == "developer" and role:
                message["role"], changed = role, True
        return changed

    def _adapt_thinking(self, body: Message) -> bool:
        """Map the effort of the Messages API, which knows no effort `none`: there it is absent."""
        efforts = self.settings["reasoning_efforts"]
        options = body.get("output_config") or {}
        if not efforts or not isinstance(options, dict):
            return False
        thinking = body.get("thinking")
        kind = thinking.get("type") if isinstance(thinking, dict) else None
        asked = options.get("effort")
        effort = efforts.get(asked, asked) if isinstance(asked, str) else None
        if kind == "enabled" and effort is None:
            effort = self.settings["thinking_effort"]
        if kind == "disabled":
            effort = None
        others = {key: value for key, value in options.items() if key != "effort"}
        wanted = others if effort in (None, "none") else {**others, "effort": effort}
        changed = wanted != options or "thinking" in body
        # vLLM 0.26.0 ignores `thinking`, later versions ask for a tokenizer that can end it after a budget.
        body.pop("thinking", None)
        body.pop("output_config", None)
        if wanted:
            body["output_config"] = wanted
        return changed

    def check(self, path: str, body: Message) -> int:
        """Compare a request with the limits. Raises Refused at the first that it exceeds; returns its characters."""
        if path == "/v1/responses":
            for key in _STATE:
                if body.get(key):
                    raise Refused(key, f"{key}: this server keeps no responses; send the whole conversation")
        for key in _OBJECTS:
            if not isinstance(body.get(key), (dict, type(None))):
                raise Refused(key, f"{key} must be an object")
        limits = self.settings["limits"]
        content = _content(body, limits["characters"])
        for address in content.addresses:
            self._check_address(address)
        schemas = sum(len(json.dumps(one)) for one in _schemas(body))
        tools = body.get("tools")
        found = {
            "choices": ("n", _choices(body), "choices"),
            "media": ("messages", content.media, "images and other media"),
            "tools": ("tools", len(tools) if isinstance(tools, list) else 0, "tools"),
            "schema_kib": ("response_format", -(-schemas // 1024), "KiB of schema, grammar or pattern"),
            "prompt_logprobs": (
                "prompt_logprobs",
                content.characters * _prompt_logprobs(body),
                "log-probabilities of characters of the prompt",
            ),
            "characters": ("messages", content.characters + content.keys, "characters of text"),
        }
        for name, (parameter, number, what) in found.items():
            if number > limits[name]:
                raise Refused(
                    parameter,
                    f"{number:,} {what} are more than the {limits[name]:,} that this server allows in one request",
                )
        return content.characters

    def _check_signs(self, raw: bytes) -> None:
        """Refuse very many objects, lists and keys before they are read. Text may hold the same signs."""
        signs = sum(raw.count(sign) for sign in b"{[:")
        most = self.settings["limits"]["characters"] // _CHARACTERS_PER_SIGN
        if signs > most:
            message = (
                f"{signs:,} objects, lists and keys, or signs of them in texts, are more than the {most:,}"
            )
            raise Refused("body", f"{message} that this server allows in one request")

    def _check_address(self, address: str) -> None:
        allowed = self.settings["media_domains"]
        try:
            url = urlsplit(address)
            name = url.hostname
        except ValueError:
            url, name = urlsplit(""), None
        if url.scheme in ("http", "https") and name in allowed:
            return
        which = f"files from {', '.join(allowed)} only" if allowed else "no files by their address"
        raise Refused("messages", f"this server fetches {which}; send a data: URL instead")

    async def _one_model(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer GET /v1/models/NAME, which vLLM lacks, from its list of models."""
        name, pieces = unquote(scope["path"].removeprefix(_ONE_MODEL)), []

        async def collect(message: Message) -> None:
            pieces.append(message)

        list_scope = {**scope, "path": "/v1/models", "raw_path": b"/v1/models"}
        await self.app(list_scope, receive, collect)
        status = pieces[0]["status"]
        body = b"".join(piece.get("body", b"") for piece in pieces[1:])
        if status == 200:  # noqa: PLR2004 - OK
            found = [row for row in json.loads(body)["data"] if row["id"] == name]
            missing = Refused("model", f"The model `{name}` does not exist.", 404)
            status, body = (
                (200, json.dumps(found[0]).encode()) if found else (404, missing.body(scope["path"]))
            )
        await _answer(send, status, body)


async def _body_in_time(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes | None:
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
        raise Refused("body", message, _TOO_SLOW) from None


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


def _with_length(scope: Message, length: int) -> Message:
    headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


async def _answer(send: Send, status: int, body: bytes, retry_after_s: int = 0) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == _TOO_SLOW:
        headers.append((b"connection", b"close"))  # what is left of the body is not waited for
    if retry_after_s:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _set_priority(body: Message, headers: dict[bytes, bytes]) -> bool:
    """Give a request the priority of its key, whatever the client wrote. Returns whether that changed it."""
    wanted = int(headers.get(b"x-vllm-priority", b"0"))
    if body.get("priority", 0) == wanted:
        return False
    body["priority"] = wanted
    return True


def _dictionaries(value: Any) -> Iterator[Message]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())


def _parsed(raw: bytes) -> tuple[Any, bool]:
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


def _number(value: Any, otherwise: int) -> int:
    """A whole number as vLLM reads it, which takes 2.0, "2" and "2.0" as well."""
    for read in (int, float):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return int(read(value))
    return otherwise


def _choices(body: Message) -> int:
    """Answers that a request asks for. A completion may hold several prompts."""
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * _number(body.get("n"), 1)


def _prompt_logprobs(body: Message) -> int:
    """Log-probabilities that a request asks for of each token of its prompt; `echo` asks for them too."""
    asked = body.get("prompt_logprobs")
    if asked is None and body.get("echo"):
        asked = body.get("top_logprobs", body.get("logprobs"))
    return 0 if asked is None else abs(_number(asked, 0)) + 1


def _schemas(body: Message) -> list[Any]:
    """What vLLM compiles into a grammar."""
    nested = (body.get("text"), body.get("output_config"))  # of the Responses and of the Messages API
    found = [body.get(name) for name in _SCHEMAS] + [
        one.get("format") for one in nested if isinstance(one, dict)
    ]
    return [one for one in found if one]


def _content(body: Message, most: int) -> Content:
    """Measure a request, up to `most` characters. Iterative: it may be nested as deeply as JSON's parser allows."""
    content = Content()
    rest: list[tuple[Any, bool]] = [(value, key not in _NO_PARTS) for key, value in body.items()]
    while rest and content.characters <= most:
        value, parts = rest.pop()
        if isinstance(value, str):
            content.characters += len(value)
        elif isinstance(value, list):
            numbers = sum(isinstance(one, int) for one in value)
            content.characters += _CHARACTERS_PER_TOKEN * numbers  # token ids
            content.keys += len(value) - numbers
            if numbers < len(value):
                rest += [(one, parts) for one in value if not isinstance(one, int)]
        elif isinstance(value, dict):
            inside = parts and value.get("type") not in ("tool_use", "function", "function_call")
            content.keys += sum(map(len, value))
            for key, item in value.items():
                if key == "arguments":
                    _check_depth(item)
                if not (inside and _is_medium(content, key, item)):
                    rest.append((item, inside))
    return content


def _check_depth(arguments: Any) -> None:
    """Refuse arguments of a tool, which are JSON in a text, that are nested deeper than vLLM can read."""
    try:
        with contextlib.suppress(ValueError, TypeError):
            json.loads(arguments)
    except RecursionError:
        raise Refused("messages", "the arguments of a tool are nested too deeply") from None


def _is_medium(content: Content, key: str, item: Any) -> bool:
    """Whether a key of a content part holds a file. Counts it, and keeps its address."""
    if key == "source" and isinstance(item, dict):  # of the Messages API
        address = item.get("url") if item.get("type") == "url" else "data:"
    elif key in _MEDIA:
        address = item.get("url", "data:") if isinstance(item, dict) else item
    else:
        return False
    content.media += 1
    if isinstance(address, str) and address[:5].lower() != "data:":
        content.addresses.append(address)
    return True
