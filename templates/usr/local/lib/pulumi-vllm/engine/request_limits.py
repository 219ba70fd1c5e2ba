"""What one request may hold, so that it does not keep all others waiting."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from refusals import Refused

if TYPE_CHECKING:
    Message = dict[str, Any]

_CHARACTERS_PER_TOKEN = 4  # as in key_tokens.py

_MEDIA = ("image_url", "audio_url", "video_url", "input_audio")
"""Keys of a content part whose value is a file: an address, or the file itself as base64."""

_NO_PARTS = ("tools", "metadata", "response_format", "structured_outputs", "text", "output_config")
"""Keys of a request that hold no content parts, so that `image_url` means something else there."""

_SCHEMAS = (
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_grammar", "guided_choice",
)  # fmt: skip
_STATE = ("previous_response_id", "conversation", "background")
_CHAT = "/v1/chat/completions"
_SPECIAL_TOKENS = 1000  # the first ones of each tokenizer of Mistral's format (mistral_common, tekken.json)
_LEAST_PENALTY = 1e-38  # vLLM divides by it in 32 bits, where a smaller number is zero
_ASKED = ("messages", "input", "prompt")
"""Keys that hold the question. vLLM answers an empty list of them with a message of Python's."""
_OBJECTS = ("structured_outputs",)
"""Keys whose value vLLM expects to be an object: another one ends in status 500."""


@dataclass
class Content:
    """What a request holds, without the media that are sent inside it."""

    characters: int = 0
    keys: int = 0
    """Characters of the keys of objects."""
    media: int = 0
    addresses: list[str] = field(default_factory=list)


def check_limits(path: str, body: Message, settings: Message) -> int:
    """Compare a request with the limits. Raises Refused at the first that it exceeds; returns its characters."""
    if path == "/v1/responses":
        for key in _STATE:
            if body.get(key):
                raise Refused(key, f"{key}: this server keeps no responses; send the whole conversation")
    _check_forms(body)
    _check_sampling(path, body, mistral=settings["mistral_tokenizer"])
    limits = settings["limits"]
    content = _content(body, limits["characters"])
    for address in content.addresses:
        _check_address(address, settings["media_domains"])
    schemas = sum(len(json.dumps(one)) for one in _schemas(body))
    tools = body.get("tools")
    found = {
        "choices": ("n", choices(body), "choices"),
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


def _check_forms(body: Message) -> None:
    """Refuse values of another form than vLLM expects, where its own answer does not name the field."""
    for key in _ASKED:
        if body.get(key) == []:
            raise Refused(key, f"{key} is empty; send at least one")
    for key in _OBJECTS:
        if not isinstance(body.get(key), (dict, type(None))):
            raise Refused(key, f"{key} must be an object")


def _check_sampling(path: str, body: Message, *, mistral: bool) -> None:
    """Refuse what leaves no token to choose, which vLLM answers with status 500."""
    with contextlib.suppress(TypeError, ValueError):
        if 0 < float(body.get("repetition_penalty") or 1) < _LEAST_PENALTY:
            raise Refused("repetition_penalty", f"repetition_penalty must be at least {_LEAST_PENALTY:g}")
    allowed = body.get("allowed_token_ids")
    if path != _CHAT or not isinstance(allowed, list) or not allowed:
        return
    if any(one != {"type": "text"} for one in _schemas(body)):
        raise Refused(
            "allowed_token_ids",
            "allowed_token_ids and a schema in one request may leave no token to choose; send one of them",
        )
    # vLLM computes a grammar for a chat with tools of such a tokenizer, in which an answer begins with text. A plain
    # chat has none (server_repairs.py), and would answer nothing but control tokens.
    if mistral and all(0 <= _number(one, -1) < _SPECIAL_TOKENS for one in allowed):
        raise Refused(
            "allowed_token_ids", "allowed_token_ids needs a token of text, and holds special ones only"
        )


def _check_address(address: str, allowed: list[str]) -> None:
    try:
        url = urlsplit(address)
        name = url.hostname
    except ValueError:
        url, name = urlsplit(""), None
    if url.scheme in ("http", "https") and name in allowed:
        return
    which = f"files from {', '.join(allowed)} only" if allowed else "no files by their address"
    raise Refused("messages", f"this server fetches {which}; send a data: URL instead")


def _number(value: Any, otherwise: int) -> int:
    """A whole number as vLLM reads it, which takes 2.0, "2" and "2.0" as well."""
    for read in (int, float):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return int(read(value))
    return otherwise


def choices(body: Message) -> int:
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
