"""On the GPU machine: the product's middleware, whose repair of vLLM's output parser a request with `x-unrepaired` goes without.

`--set middleware=without_repair.Optional` and levels with and without `x-unrepaired=1` compare both on one engine.
"""

from __future__ import annotations

import contextvars
import importlib
from typing import Any

from client_requests import ClientRequests

PARSER, BUILD = "vllm.parser.engine.streaming_parser_engine", "_build_drop_info"
"""As server_repairs.py names them."""

_UNREPAIRED = contextvars.ContextVar("unrepaired", default=False)


class Optional(ClientRequests):
    """The middleware, with both of vLLM's functions: as it is, and repaired."""

    def __init__(self, app: Any) -> None:
        parser = importlib.import_module(PARSER)
        plain = getattr(parser, BUILD)
        super().__init__(app)
        repaired = getattr(parser, BUILD)
        assert repaired is not plain

        def build(config: Any, tokenizer: Any) -> Any:
            return (plain if _UNREPAIRED.get() else repaired)(config, tokenizer)

        setattr(parser, BUILD, build)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Choose by the header."""
        _UNREPAIRED.set(any(name == b"x-unrepaired" for name, _ in scope.get("headers", ())))
        await super().__call__(scope, receive, send)
