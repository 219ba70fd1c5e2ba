"""Smoke checks of what today's clients send: other roles, efforts, names and routes, and requests beyond the limits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pulumi_vllm.client.errors import RequestRefused
from pulumi_vllm.client.gateway_session import GatewaySession
from pulumi_vllm.client.outcomes import Failed, NotSupported, excerpt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pulumi_vllm.client.endpoint import Endpoint
    from pulumi_vllm.client.served_model import ServedModel

_BAD_REQUEST, _UNAUTHORIZED = 400, 401
_EFFORTS = ("minimal", "low", "medium", "xhigh")
_QUESTION = "Say something about the weather, in one sentence."
_MESSAGES = [{"role": "user", "content": _QUESTION}]
_TOKENS = 16
_MANY_CHOICES = 20_000  # vLLM's own limit is 16,384
_PRIVATE = ("file:///etc/hostname", "http://127.0.0.1:8000/v1/models", "http://169.254.169.254/")
"""What no image may be fetched from. The last one holds keys of the machine on many clouds."""
_ANTHROPIC = {"anthropic-version": "2023-06-01"}


class ClientChecks:
    """Checks of the requests that clients of other servers send. `table` holds them in the order in which they run."""

    def __init__(self, endpoint: Endpoint, served: ServedModel) -> None:
        """Prepare the checks; nothing is sent yet."""
        self.endpoint, self.served = endpoint, served
        self.root = dataclasses.replace(endpoint, url=endpoint.url.removesuffix("/v1"))
        self.table: dict[str, Callable[[], Awaitable[str]]] = {
            "model names": self._names,
            "developer role": self._developer,
            "other efforts": self._efforts,
            "empty tools": self._no_tools,
            "max_completion_tokens": self._completion_tokens,
            "responses": self._responses,
            "messages": self._messages,
            "x-api-key": self._x_api_key,
            "tokens": self._tokens,
            "limits": self._limits,
            "limits of the key": self._key_limits,
        }

    async def _ask(
        self, path: str, body: dict[str, Any], endpoint: Endpoint | None = None, **more: Any
    ) -> Any:
        """Ask for what every model of this package answers. Of another server, a refusal means that it does not."""
        async with GatewaySession(endpoint or self.endpoint) as gateway:
            try:
                return await gateway.json("POST", path, {"model": self.served.name} | body, **more)
            except RequestRefused as refused:
                if self.served.in_catalogue or refused.status == _UNAUTHORIZED:
                    raise
                raise NotSupported(refused.server_message) from None

    async def _chat(self, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self._ask(
            "/chat/completions", {"messages": _MESSAGES, "max_tokens": _TOKENS, "temperature": 0} | more
        )
        return answer

    async def _refused(self, path: str, body: dict[str, Any]) -> str:
        """Return the message of a refusal with status 400. Anything else is wrong."""
        try:
            await self._ask(path, body)
        except RequestRefused as refused:
            if refused.status == _BAD_REQUEST:
                return refused.server_message
            raise
        raise Failed("a request that this server cannot serve was answered")

    async def _names(self) -> str:
        async with GatewaySession(self.endpoint) as gateway:
            names = [row["id"] for row in (await gateway.json("GET", "/models"))["data"]]
            for name in names:
                try:
                    row = await gateway.json("GET", f"/models/{quote(name, safe='')}")
                except RequestRefused as refused:
                    if self.served.in_catalogue:
                        raise
                    raise NotSupported(refused.server_message) from None
                if row["id"] != name:
                    raise Failed(f"/models/{name} describes {excerpt(str(row['id']))}")
        for name in names:
            await self._chat(model=name, max_tokens=1)
        return f"answers as {', '.join(names)}"

    async def _developer(self) -> str:
        rule = {"role": "developer", "content": "Be short."}
        await self._chat(messages=[rule, *_MESSAGES], max_tokens=1)
        # Codex and other agents say more to the model in the middle of a conversation.
        later = [*_MESSAGES, {"role": "assistant", "content": "It rains."}, rule, *_MESSAGES]
        answer = await self._chat(messages=later)
        return excerpt(answer["choices"][0]["message"]["content"] or "")

    async def _efforts(self) -> str:
        if self.served.reasons is False:
            raise NotSupported("the engine was started without --reasoning-parser")
        found = []
        for effort in _EFFORTS:
            message = (await self._chat(reasoning_effort=effort))["choices"][0]["message"]
            reasons = bool(message.get("reasoning") or message.get("reasoning_content"))
            found.append(f"{effort} {'reasons' if reasons else 'does not reason'}")
        return ", ".join(found)

    async def _no_tools(self) -> str:
        answer = await self._chat(tools=[], tool_choice="auto")
        return f"finish reason {answer['choices'][0]['finish_reason']}"

    async def _completion_tokens(self) -> str:
        body = {"messages": _MESSAGES, "max_completion_tokens": 2, "temperature": 0}
        count = (await self._ask("/chat/completions", body))["usage"]["completion_tokens"]
        if count > 2:  # noqa: PLR2004 - asked for above
            raise Failed(f"2 tokens were asked for, and {count} came")
        return f"{count} tokens"

    async def _responses(self) -> str:
        # OpenAI's clients send a text as parts.
        question = {"role": "user", "content": [{"type": "input_text", "text": _QUESTION}]}
        body = {"input": [question], "max_output_tokens": 2 * _TOKENS}
        output = (await self._ask("/responses", body))["output"]
        texts = [part["text"] for item in output for part in item.get("content") or () if "text" in part]
        if not "".join(texts).strip():
            raise Failed("the answer has no text")
        try:
            refusal = await self._refused("/responses", body | {"previous_response_id": "resp_1"})
        except NotSupported:
            refusal = "it keeps no responses"
        return f"{excerpt(texts[-1])}; previous_response_id: {excerpt(refusal)}"

    async def _messages(self) -> str:
        body = {"messages": _MESSAGES, "max_tokens": _TOKENS}
        answer = await self._ask("/messages", body, headers=_ANTHROPIC)
        counted = await self._ask("/messages/count_tokens", {"messages": _MESSAGES}, headers=_ANTHROPIC)
        if answer["usage"]["input_tokens"] != counted["input_tokens"]:
            raise Failed(
                f"count_tokens says {counted['input_tokens']}, the answer {answer['usage']['input_tokens']}"
            )
        text = "".join(block.get("text") or "" for block in answer["content"])
        return f"{excerpt(text)}, {counted['input_tokens']} tokens in"

    async def _x_api_key(self) -> str:
        if self.endpoint.key is None:
            raise NotSupported("no key was given")
        without = dataclasses.replace(self.endpoint, key=None)
        try:
            async with GatewaySession(without) as gateway:
                await gateway.json("GET", "/models", headers={"x-api-key": self.endpoint.key})
        except RequestRefused as refused:
            if refused.status == _UNAUTHORIZED and self.endpoint.stack is None:
                raise NotSupported("this server takes keys as Authorization: Bearer only") from None
            raise
        return "accepted for the Messages API"

    async def _tokens(self) -> str:
        tokens = (await self._ask("/tokenize", {"prompt": _QUESTION}, self.root))["tokens"]
        prompt = (await self._ask("/detokenize", {"tokens": tokens}, self.root))["prompt"]
        return f"{len(tokens)} tokens, {excerpt(prompt)}"

    async def _limits(self) -> str:
        body = {"messages": _MESSAGES, "max_tokens": 1}
        many = await self._refused("/chat/completions", body | {"n": _MANY_CHOICES, "temperature": 1})
        if not self.served.accepts_images:
            return f"n: {excerpt(many)}"
        fetched = ""
        for url in _PRIVATE:
            image = {"type": "image_url", "image_url": {"url": url}}
            message = {"role": "user", "content": [image]}
            fetched = await self._refused("/chat/completions", body | {"messages": [message]})
        return f"n: {excerpt(many)}; an image's address: {excerpt(fetched)}"

    async def _key_limits(self) -> str:
        """Read what answers say about the key's limits. It exceeds none: the key may be in use."""
        async with GatewaySession(self.endpoint) as gateway:
            body = {"model": self.served.name, "messages": _MESSAGES, "max_tokens": 1}
            await gateway.json("POST", "/chat/completions", body)
            limits = gateway.rate_limits
        if not limits and self.endpoint.stack is None:
            raise NotSupported("this server does not name the limits of a key")
        found = []
        for what in ("requests", "tokens"):
            limit, left = limits.get(f"limit-{what}"), limits.get(f"remaining-{what}")
            if limit is None and what == "tokens":
                continue  # no limit is declared for this key
            if limit is None or left is None or left >= limit:
                raise Failed(f"a request was not counted: {left} of {limit} {what} in 60 s are left")
            found.append(f"{left:,} of {limit:,} {what} in 60 s are left")
        return ", ".join(found)
