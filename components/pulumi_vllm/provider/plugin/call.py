"""One request of the engine: which resource it is for, where to report progress, and when to stop."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from pulumi_vllm.provider.plugin.errors import Cancelled
from pulumi_vllm.provider.plugin.session import Session

Result = TypeVar("Result")


@dataclass(slots=True)
class Call:
    """One request of the engine for one resource."""

    urn: str
    session: Session
    ignore: tuple[str, ...] = ()
    preview: bool = False
    timeout_s: float = 0.0
    """The resource's `customTimeouts`; 0 where it has none."""

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.urn.split("::")[0].removeprefix("urn:pulumi:")

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.urn.split("::")[1]

    @property
    def name(self) -> str:
        """Name of the resource in the program."""
        return self.urn.split("::")[-1]

    @property
    def type_token(self) -> str:
        """Type of the resource, as in "vllm:host:Files"."""
        return self.urn.split("::")[2].rpartition("$")[2]

    async def progress(self, message: str) -> None:
        """Show a message while the operation runs. The engine does not keep it."""
        await self.session.progress(self.urn, message)

    async def info(self, message: str) -> None:
        """Print a message that stays."""
        await self.session.log(self.urn, message, "INFO")

    async def warn(self, message: str) -> None:
        """Print a warning, once per resource and message in this process."""
        await self.session.warn(self.urn, message)

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Cancelled: at once, when the user cancels the operation.
        """
        try:
            await asyncio.wait_for(self.session.cancelled.wait(), seconds)
        except TimeoutError:
            return
        raise Cancelled("cancelled")

    async def until_cancelled(self, work: Awaitable[Result]) -> Result:
        """Wait for `work`, and abandon it when the user cancels the operation.

        Raises:
            Cancelled: at once, when the user cancels the operation.
        """
        task = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self.session.cancelled.wait())
        try:
            await asyncio.wait({task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Cancelled("cancelled")
        finally:
            for pending in (task, cancelled):
                pending.cancel()
            await asyncio.gather(task, cancelled, return_exceptions=True)
