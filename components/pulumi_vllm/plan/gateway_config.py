"""The blocks `gateway` and `requests` of the stack file: what clients may ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from pulumi_vllm.plan.config_fields import MOST_RUNNING_REQUESTS, RELOAD, RESTART, Block, HostName, key

_ORIGIN = re.compile(
    r"(https?|[a-z][a-z0-9-]{0,40}-extension)://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?"
)


def _origin(value: object) -> str:
    text = str(value)
    if len(text) > 300 or not _ORIGIN.fullmatch(text):  # noqa: PLR2004 - longer than any name and port
        msg = f"{text[:80]!r} is not an origin; write scheme and host in lower case, such as https://chat.example.com"
        raise ValueError(msg)
    return text


Origin = Annotated[str, BeforeValidator(_origin)]
Effort = Annotated[str, Field(pattern="^(none|minimal|low|medium|high|xhigh|max)$")]


class Gateway(Block):
    """Limits at the gateway."""

    requests_per_minute: Annotated[int, key(RELOAD, "requests per 60 s", ge=1, le=1_000_000)] = 6_000
    """Requests that one key may make in 60 s; further ones get 429. The default is more than twice what the
    fastest measured machine answers: 2x H200 in FP8 with 512 streams generates 10,953 tokens/s, which is 2,567 answers
    of 256 tokens a minute."""
    max_body_mib: Annotated[int, key(RELOAD, "MiB", ge=1, le=512)] = 16
    """Largest request body. Images are sent inside it as base64."""
    streams_per_key: Annotated[int | None, key(RELOAD, "requests", ge=1, le=MOST_RUNNING_REQUESTS)] = None
    """Requests of one key that run or wait at once; further ones get 429. Unset: with one key 512, or `concurrency` if
    that is more; with several and a `concurrency` of 4 or more, a sixteenth less than that, so that no key fills every
    place."""
    queue_timeout_s: Annotated[int, key(RELOAD, "seconds", ge=1, le=3600)] = 30
    """The gateway passes on as many requests at once as vLLM serves (`concurrency`). Further ones wait so long, then
    get 503. At the slowest measured level, 512 streams in NVFP4 on one H200, an answer of 256 tokens takes 18 s."""
    request_timeout_s: Annotated[int, key(RELOAD, "seconds", ge=1, le=600)] = 10
    """Time in which a client must send a request's header and the first 32 KiB of its body. The whole body may take
    one second longer for each MiB."""
    idle_timeout_s: Annotated[int, key(RELOAD, "seconds", ge=1, le=3600)] = 60
    """How long a client may be silent in the TLS handshake, or may read nothing of the answer."""
    answer_timeout_s: Annotated[int, key(RELOAD, "seconds", ge=1, le=3600)] = 600
    """Longest silence of the engine before the first token or between two tokens; then the client gets 504. It also
    ends a request whose client stops inside a body of more than 32 KiB. A reload of the gateway cuts requests that
    still run 61 minutes later."""
    cors_origins: Annotated[tuple[Origin, ...], key(RELOAD)] = ()
    """Origins of web pages that may call the API from a browser, for example `https://chat.example.com`."""
    media_domains: Annotated[tuple[HostName, ...], key(RESTART)] = ()
    """Host names from which vLLM may fetch an image that a request names by its address. Without any it fetches
    nothing, and clients send images inside the request. Redirects are never followed, and a name that leads to this
    host or to an address that is not public is refused by the firewall."""


class Requests(Block):
    """What one request may ask for, and how it is adapted to the model."""

    reasoning_efforts: Annotated[Mapping[Effort, Effort] | None, key(RESTART)] = None
    """A client's reasoning effort → the model's. Unset takes the catalogue's; `{}` passes every effort on unchanged."""
    choices: Annotated[int, key(RESTART, "answers", ge=1, le=16_384)] = 32
    """Answers that one request may ask for: prompts times `n`. vLLM's own limit is 16,384, and 2,000 let another client
    wait for 42 s. The number is part of the key of vLLM's compile cache, so the first start after a change is a cold
    one."""
    media: Annotated[int, key(RESTART, "files", ge=0, le=999)] = 64
    """Images and other files in one request."""
    image_megapixels: Annotated[int, key(RESTART, "million pixels", ge=1, le=178)] = 64
    """Size of one image once it is unpacked, 3 bytes a pixel. A few kilobytes can hold an image of 178 million pixels,
    which is vLLM's own limit."""
    tools: Annotated[int, key(RESTART, "tools", ge=0, le=10_000)] = 256
    """Tools in one request."""
    schema_kib: Annotated[int, key(RESTART, "KiB", ge=1, le=16_384)] = 128
    """Size of the schema, grammar, pattern or list of choices that an answer must follow. 1.6 MB took vLLM 23 s, in
    which it answered nobody; 128 KiB take about one."""
    prompt_logprobs: Annotated[int, key(RESTART, "characters", ge=1, le=1_000_000_000)] = 65_536
    """Characters of a prompt whose log-probabilities a request asks for (`prompt_logprobs`, or `echo` with `logprobs`),
    times their number for each token. vLLM answers nobody while it writes them: for 20 of 1,800 tokens each, 2 s."""
    characters_per_token: Annotated[int, key(RESTART, "characters", ge=1, le=1_000)] = 16
    """Longest text of a request, as a multiple of `context`, and never less than 65,536 characters. vLLM splits a text
    into tokens before it refuses one that is too long: 14 MB kept others waiting for 5 s."""
