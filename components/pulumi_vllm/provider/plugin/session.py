"""State of the plugin process: the engine's log, the rental API's client, the connections to the hosts."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import protobuf_module

if TYPE_CHECKING:
    from pulumi_vllm.host.connection_pool import ConnectionPool
    from pulumi_vllm.spheron.api_address import Remedies
    from pulumi_vllm.spheron.client import Spheron

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Without a terminal the engine prints every progress line, so a resource gets at most one in this time.
_PROGRESS_EVERY_S = 10.0
_CRITICAL_PAUSE_S = 0.1
# A refresh and a destroy do not run the program. The engine configures the provider as it was at the last `up`.
_IN_STATE = (
    "check the {0}, which is the provider's own ({1}); if it was replaced, set the new one where the program takes it "
    "from, then run `pulumi up --refresh=false` once: refresh, preview and destroy use the one in the state until then"
)


class Session:
    """State shared by all requests of one plugin process."""

    def __init__(self, engine_address: str) -> None:
        self.engine_address = engine_address
        self.cancelled = asyncio.Event()
        self.config: dict[str, str] = {}
        self.in_state: set[str] = set()
        """URNs of the instances that the state contains, whatever becomes of them in this run."""
        self.adopted: set[str] = set()
        """Ids of the instances that a create has adopted in this run."""
        self.successors: dict[str, str] = {}
        """By URN of a volume: the volume that took its place in this run, because machines overlap."""
        self._engine: Any = None
        self._engine_channel: Any = None
        self._progress_at: dict[str, float] = {}
        self._warnings: set[tuple[str, str]] = set()
        self._cloud: Spheron | None = None
        self._hosts: ConnectionPool | None = None
        self._critical_sections = 0

    # -- the cloud and the hosts -------------------------------------------------------------------
    def cloud(self) -> "Spheron":
        """Return the client of the rental API. It is created on first use, because many previews need none.

        Raises:
            UserError: there is no API key.
        """
        if self._cloud is None:
            from pulumi_vllm.spheron.client import Spheron  # requests takes 0.1 s to import

            key = self.config.get("spheronApiKey") or os.environ.get("SPHERON_API_KEY", "")
            url = self.config.get("spheronUrl") or os.environ.get("SPHERON_URL")
            if not key:
                raise UserError(
                    "there is no key for the Spheron API; set SPHERON_API_KEY, "
                    "or run `pulumi config set --secret vllm:spheronApiKey`"
                )
            self._cloud = Spheron(key, url=url, remedies=self._remedies())
        return self._cloud

    def _remedies(self) -> "Remedies":
        """Return what to do about a key or a URL that does not work: the state may hold an old one."""
        from pulumi_vllm.spheron.api_address import Remedies  # a process that needs no cloud does not load it

        remedies = Remedies()
        if self.config.get("spheronUrl"):
            url = _IN_STATE.format("URL", "spheronUrl")
            remedies = Remedies(key=f"{remedies.key}, or {url}", url=url)
        if self.config.get("spheronApiKey"):
            remedies = Remedies(key=_IN_STATE.format("key", "spheronApiKey"), url=remedies.url)
        return remedies

    def hosts(self) -> "ConnectionPool":
        """Return the connections to the hosts: one per host, shared by its resources."""
        if self._hosts is None:
            from pulumi_vllm.host.connection_pool import ConnectionPool  # asyncssh takes 0.2 s to import

            self._hosts = ConnectionPool()
        return self._hosts

    async def ask(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a blocking function of the client in a thread, so that the event loop keeps running."""
        return await asyncio.to_thread(function, *args, **kwargs)

    @contextlib.asynccontextmanager
    async def critical(self) -> AsyncIterator[None]:
        """Keep the process alive until the block ends, even when the engine exits: a paid call is in flight."""
        self._critical_sections += 1
        try:
            yield
        finally:
            self._critical_sections -= 1

    # -- the engine ---------------------------------------------------------------------------------
    async def log(self, urn: str, text: str, severity: str, *, ephemeral: bool = False) -> None:
        """Print a line for a resource. An engine that is gone is not an error."""
        import grpc  # the server has loaded it already

        engine_pb = protobuf_module("engine_pb2")
        if self._engine is None:
            self._engine_channel = grpc.aio.insecure_channel(self.engine_address)
            self._engine = protobuf_module("engine_pb2_grpc").EngineStub(self._engine_channel)
        request = engine_pb.LogRequest(
            severity=getattr(engine_pb, severity), message=text, urn=urn, ephemeral=ephemeral
        )
        with contextlib.suppress(grpc.RpcError):
            await self._engine.Log(request)

    async def progress(self, urn: str, text: str) -> None:
        """Show an ephemeral line, at most one per resource every few seconds."""
        now = time.monotonic()
        if now - self._progress_at.get(urn, -_PROGRESS_EVERY_S) >= _PROGRESS_EVERY_S or "\x1b" in text:
            self._progress_at[urn] = now
            await self.log(urn, text, "INFO", ephemeral=True)

    async def warn(self, urn: str, text: str) -> None:
        """Print a warning once: refresh and preview both look at the same resource."""
        if (urn, text) not in self._warnings:
            self._warnings.add((urn, text))
            await self.log(urn, text, "WARNING")

    # -- the process --------------------------------------------------------------------------------
    async def close(self) -> None:
        """Cancel what runs, wait until no paid call is in flight, and close all connections."""
        self.cancelled.set()
        while self._critical_sections:  # noqa: ASYNC110 (rare, and short)
            await asyncio.sleep(_CRITICAL_PAUSE_S)
        if self._hosts is not None:
            await self._hosts.close()
        if self._engine_channel is not None:
            await self._engine_channel.close()

    async def exit_with_parent(self, parent: int, period_s: float = 0.5) -> None:
        """End the process once the engine that started it is gone and no paid call is in flight."""
        while os.getppid() == parent:  # noqa: ASYNC110 (a parent that exits sends no event)
            await asyncio.sleep(period_s)
        self.cancelled.set()
        while self._critical_sections:  # noqa: ASYNC110 (rare, and short)
            await asyncio.sleep(period_s)
        os._exit(0)
