"""On the GPU machine: the product's middleware, which a request with the header `x-plain` goes past.

`--set middleware=without_requests.Optional` and levels with and without `x-plain=1` compare both on one engine.
"""

from __future__ import annotations

from typing import Any

from client_requests import ClientRequests


class Optional:
    """The middleware, and the application behind it."""

    def __init__(self, app: Any) -> None:
        self.plain, self.adapted = app, ClientRequests(app)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Choose by the header."""
        plain = any(name == b"x-plain" for name, _ in scope.get("headers", ()))
        await (self.plain if plain else self.adapted)(scope, receive, send)
