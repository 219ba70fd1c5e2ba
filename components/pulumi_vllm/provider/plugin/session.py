"""What the plugin process holds for as long as it lives: the engine's log, the cloud, the hosts."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from pulumi_vllm.provider.plugin.protocol import message
from pulumi_vllm.provider.plugin.resource import UserError

# One line per resource and this many seconds where the engine's output is no terminal: it prints each of them.
_QUIET_S = 10.0


class Session:
    """Shared by all requests of one plugin process."""

    def __init__(self, engine_address: str) -> None:
        self.engine_address = engine_address
        self.cancelled = asyncio.Event()
        self.config: dict[str, str] = {}
        self._stub: Any = None
        self._said: dict[str, float] = {}
        self._warned: set[tuple[str, str]] = set()
        self._cloud: Any = None
        self._hosts: Any = None
        self._critical = 0

    # -- the cloud and the hosts -------------------------------------------------------------------
    def cloud(self) -> Any:
        """The rental API's client, made on first use so that a preview without it stays cheap."""
        if self._cloud is None:
            from pulumi_vllm.spheron.client import Spheron  # requests takes 0.1 s

            key = self.config.get("spheronApiKey") or os.environ.get("SPHERON_API_KEY", "")
            url = self.config.get("spheronUrl") or os.environ.get("SPHERON_URL")
            if not key:
                raise UserError(
                    "no key for the Spheron API; set SPHERON_API_KEY, "
                    "or `pulumi config set --secret vllm:spheronApiKey …`"
                )
            self._cloud = Spheron(key, url=url)
        return self._cloud

    def hosts(self) -> Any:
        """Connections to the machines: one per host, shared by its resources."""
        if self._hosts is None:
            from pulumi_vllm.host.pool import Connections  # asyncssh takes 0.2 s

            self._hosts = Connections()
        return self._hosts

    async def ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a blocking call of the client in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(call, *args, **kwargs)

    @contextlib.asynccontextmanager
    async def critical(self) -> AsyncIterator[None]:
        """While inside, the process does not leave although the engine has: a paid call is in flight."""
        self._critical += 1
        try:
            yield
        finally:
            self._critical -= 1

    # -- the engine ---------------------------------------------------------------------------------
    async def log(self, urn: str, text: str, severity: str, *, ephemeral: bool = False) -> None:
        """Print a line at the resource; a lost engine is no reason to fail."""
        import grpc  # already loaded by the server

        engine = message("engine_pb2")
        if self._stub is None:
            channel = grpc.aio.insecure_channel(self.engine_address)
            self._stub = message("engine_pb2_grpc").EngineStub(channel)
        request = engine.LogRequest(
            severity=getattr(engine, severity), message=text, urn=urn, ephemeral=ephemeral
        )
        with contextlib.suppress(grpc.RpcError):
            await self._stub.Log(request)

    async def progress(self, urn: str, text: str) -> None:
        """An ephemeral line, at most one every few seconds for each resource."""
        now = time.monotonic()
        if now - self._said.get(urn, -_QUIET_S) >= _QUIET_S or "\x1b" in text:
            self._said[urn] = now
            await self.log(urn, text, "INFO", ephemeral=True)

    async def warn(self, urn: str, text: str) -> None:
        """A warning, once: refresh and plan both look at the same thing."""
        if (urn, text) not in self._warned:
            self._warned.add((urn, text))
            await self.log(urn, text, "WARNING")

    # -- life ---------------------------------------------------------------------------------------
    async def leave_with_parent(self, parent: int, period_s: float = 0.5) -> None:
        """End the process once the engine that started it is gone and no paid call is in flight."""
        while os.getppid() == parent:  # noqa: ASYNC110 (a parent gives no event)
            await asyncio.sleep(period_s)
        self.cancelled.set()
        while self._critical:  # noqa: ASYNC110 (rare, and short)
            await asyncio.sleep(period_s)
        os._exit(0)
