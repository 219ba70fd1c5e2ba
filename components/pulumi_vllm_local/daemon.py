"""The local cloud's process: API, hub and machines of one state folder, until it is told to end.

It may be killed at any moment: guests live on, and the next one adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local import json_files
from pulumi_vllm_local.api import rental_api
from pulumi_vllm_local.api.store import Options, Store
from pulumi_vllm_local.hub import content, model_hub
from pulumi_vllm_local.images.image_cache import ImageCache
from pulumi_vllm_local.machines.containers import Machines
from pulumi_vllm_local.settings import Files, LocalCloudError, Settings, take
from pulumi_vllm_local.web import Server, listen, serve_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pulumi_vllm_local.machines.hardware import Hardware

LOG = logging.getLogger("pulumi_vllm_local")


def _sockets(port: int, others: tuple[str, ...], remedy: str) -> list[socket.socket]:
    """The same port on loopback and other addresses."""
    try:
        first = listen("127.0.0.1", port)
        return [first, *(listen(other, first.getsockname()[1]) for other in others)]
    except OSError as error:
        raise LocalCloudError(f"{error.strerror}; {remedy}") from error


async def _serve(state_dir: Path, settings: Settings, machines: Hardware, gateway: str) -> None:
    files = Files(state_dir)
    api_sockets = _sockets(
        settings.port,
        (),
        "end what listens there, or take another one with `pulumi-vllm local up --port NUMBER`",
    )
    hub_sockets = _sockets(
        settings.hub_port, (gateway,) if gateway else (), "end what listens there, then start again"
    )
    settings = replace(
        settings, port=api_sockets[0].getsockname()[1], hub_port=hub_sockets[0].getsockname()[1]
    )
    # The ports stay for the next process: stacks have them in their environment.
    settings.write(state_dir)
    store = Store(files.records, settings.api_key, Options(factor=settings.factor))
    simulator = Server(rental_api.application(store, machines, settings.engine))
    models = Server(model_hub.application(content.repositories(files.hub)), dated=False)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, simulator.handle_exit, number, None)
    json_files.write(
        files.process,
        {
            "pid": os.getpid(),
            "url": f"http://127.0.0.1:{settings.port}",
            "hub_url": f"http://{gateway or '127.0.0.1'}:{settings.hub_port}",
        },
    )
    LOG.info(
        "serving: API on port %d, hub on port %d, engine %s",
        settings.port,
        settings.hub_port,
        settings.engine,
    )
    await serve_all([(simulator, api_sockets), (models, hub_sockets)])
    LOG.info("ended")
    # Threads may still wait for a guest to power off; what they do is written down and is taken up again.
    logging.shutdown()
    os._exit(0)


def run(state_dir: Path, make: Callable[[Path, ImageCache], Any] = Machines) -> int:
    """Serve a state folder in this process; its settings must be there."""
    files = Files(state_dir)
    settings = Settings.read(state_dir)
    if settings is None:
        raise LocalCloudError(f"{state_dir}: no settings; start it with `pulumi-vllm local up`")
    held = take(files.lock)
    if held is None:
        raise LocalCloudError(f"{state_dir}: another process serves it; see `pulumi-vllm local status`")
    with held, contextlib.suppress(KeyboardInterrupt):
        machines = make(state_dir, ImageCache(Path(settings.engine_locks)))
        asyncio.run(_serve(state_dir, settings, machines, machines.gateway))
    return 0


def main(argv: list[str]) -> int:
    """Entry of the detached process: one argument, the state folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return run(Path(argv[0]))
    except (LocalCloudError, OSError, RuntimeError, ValueError) as error:
        LOG.error("%s", error)  # noqa: TRY400 (a sentence)
        return 1
    except Exception as error:
        # Errors of the guests are sentences too; anything else shows where it came from.
        LOG.exception("%s", error)  # noqa: TRY401 (the last line of the log is what `up` shows)
        LOG.error("%s", error)  # noqa: TRY400 (a sentence)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
