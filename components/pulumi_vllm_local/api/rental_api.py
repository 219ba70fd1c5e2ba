"""The simulated rental API: its routes, and a front end for authentication, rate limits, faults and the request log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse

from pulumi_vllm_local.api import account, deployments, simulation, volumes
from pulumi_vllm_local.api.lifecycle import Lifecycle
from pulumi_vllm_local.api.refusals import Refusal, envelope, rate_limited
from pulumi_vllm_local.api.request_fields import Cloud

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pulumi_vllm_local.api.faults import Fault
    from pulumi_vllm_local.api.store import Store
    from pulumi_vllm_local.machines.hardware import Hardware

_ANONYMOUS = {"/api/providers", "/api/gpu-offers"}
_LOG_ROWS = 5000
_PAGE = "<html><head><title>Just a moment</title></head><body><h1>Just a moment</h1></body></html>"


def application(store: Store, hardware: Hardware, engine: str = "fake") -> ASGIApp:
    """Return the API for these records and machines; while it is served, it drives the machines."""
    cloud = Cloud(store, Lifecycle(store, hardware, engine))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        life = asyncio.create_task(cloud.lifecycle.run())
        try:
            yield
        finally:
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life
            store.save()

    routes = [*account.ROUTES, *deployments.ROUTES, *volumes.ROUTES, *simulation.ROUTES]
    handlers: Any = {Refusal: _refuse, 404: _missing, 405: _missing}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.state.cloud = cloud
    app.state.requests = deque(maxlen=_LOG_ROWS)
    return FrontEnd(app, cloud, app.state.requests)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, Refusal):
        raise error
    return error.response()


async def _missing(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 404)
    return envelope(status, "Route not found", "NOT_FOUND").response()


class FrontEnd:
    """Check key, User-Agent and rate limits in the order of the live service, inject faults, and log each request."""

    def __init__(self, app: ASGIApp, cloud: Cloud, rows: deque[dict[str, Any]]) -> None:
        """Wrap an application."""
        self._app, self._cloud, self._rows = app, cloud, rows
        self._calls: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith("/_sim/"):
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        row: dict[str, Any] = {
            "at": round(time.time(), 3),
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode("latin-1"),
            "status": None,
        }
        self._rows.append(row)

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                row["status"] = message["status"]
                # Of the virtual clock, as all times in the answers are.
                date = formatdate(self._cloud.store.clock.now(), usegmt=True).encode()
                message["headers"] = [*message.get("headers", ()), (b"date", date)]
            await send(message)

        fault = self._cloud.faults.transport(scope["method"], scope["path"])
        row["fault"] = fault.kind if fault else None
        try:
            await self._serve(fault, scope, receive, send_and_log, send)
        finally:
            row["ms"] = round((time.monotonic() - started) * 1000)

    async def _serve(
        self, fault: Fault | None, scope: Scope, receive: Receive, send: Send, plain: Send
    ) -> None:
        kind = fault.kind if fault else None
        if fault and kind == "latency":
            await asyncio.sleep(fault.seconds)
        if kind == "drop_before":
            await _hang_up(plain)
        elif fault and kind in {"status", "html"}:
            await _injected(fault)(scope, receive, send)
        elif refusal := self._refusal(scope):
            await refusal.response()(scope, receive, send)
        elif fault and kind in {"status_after", "drop_after", "malformed"}:
            messages: list[Message] = []

            async def collect(message: Message) -> None:
                messages.append(message)

            await self._app(scope, receive, collect)
            if kind == "drop_after":
                await _hang_up(plain)
            elif kind == "status_after":
                await _injected(fault)(scope, receive, send)
            else:
                await _truncated(messages)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        bearer = headers.get("authorization", "")
        if scope["path"] not in _ANONYMOUS and bearer != f"Bearer {self._cloud.store.api_key}":
            return envelope(401, "Invalid or missing API key", "UNAUTHORIZED")
        if headers.get("user-agent", "").startswith("Python-urllib"):
            return envelope(403, "Forbidden", "FORBIDDEN")
        options = self._cloud.store.options
        if (scope["method"], scope["path"]) == ("POST", "/api/deployments"):
            return self._limited("creates", options.creates_per_window)
        address = (scope.get("client") or ("", 0))[0]
        return self._limited(f"from {address}", options.requests_per_window)

    def _limited(self, who: str, allowed: int) -> Refusal | None:
        """Count a call in a sliding window of virtual time; refuse it above the limit."""
        now, window = self._cloud.store.clock.now(), self._cloud.store.options.window_s
        calls = self._calls.setdefault(who, deque())
        while calls and calls[0] <= now - window:
            calls.popleft()
        if len(calls) >= allowed:
            return rate_limited(max(1, math.ceil(calls[0] + window - now)) if calls else math.ceil(window))
        calls.append(now)
        return None


def _injected(fault: Fault) -> JSONResponse | HTMLResponse:
    if fault.kind == "html":
        return HTMLResponse(_PAGE, fault.answer)
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else None
    body = fault.body if fault.body is not None else {"error": "fault injected", "code": "INJECTED"}
    return JSONResponse(body, fault.answer, headers)


def _truncated(messages: list[Message]) -> HTMLResponse:
    start = next(item for item in messages if item["type"] == "http.response.start")
    body = b"".join(item.get("body", b"") for item in messages if item["type"] == "http.response.body")
    half = body[: len(body) // 2] or json.dumps({})[:1].encode()
    return HTMLResponse(half, start["status"], media_type="application/json")


async def _hang_up(send: Send) -> None:
    """Close the connection without an answer; ASGI cannot do that, so use the transport of the server."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("fault: this server's connections cannot be dropped; serve the API with uvicorn")
    transport.abort()
    await asyncio.sleep(0.01)
