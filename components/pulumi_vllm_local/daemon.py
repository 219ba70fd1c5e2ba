"""The process of the local cloud: it serves the API and the hub of one state folder until a signal stops it.

It may be killed at any moment. The machines keep running, and the next process adopts them.
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
from pulumi_vllm_local.settings import Files, LocalCloudError, Settings, lock_file
from pulumi_vllm_local.web import Server, listen, serve_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pulumi_vllm_local.machines.hardware import Hardware

LOG = logging.getLogger("pulumi_vllm_local")


def _sockets(port: int, others: tuple[str, ...], remedy: str) -> list[socket.socket]:
    """Listen on the same port of loopback and of other addresses."""
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
        "stop what listens there, or use another port: `pulumi-vllm local up --port NUMBER`",
    )
    hub_sockets = _sockets(
        settings.hub_port, (gateway,) if gateway else (), "stop what listens there, then start again"
    )
    settings = replace(
        settings, port=api_sockets[0].getsockname()[1], hub_port=hub_sockets[0].getsockname()[1]
    )
    # The next process uses the same ports, because stacks have them in their environment.
    settings.write(state_dir)
    store = Store(files.records, settings.api_key, Options(factor=settings.factor))
    simulator = Server(rental_api.application(store, machines, settings.engine), dated=False)
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
    LOG.info("stopped")
    # Threads may still wait for a machine to power off. Their work is recorded, and the next process continues it.
    logging.shutdown()
    os._exit(0)


def run(state_dir: Path, make: Callable[[Path, ImageCache], Any] = Machines) -> int:
    """Serve a state folder in this process; the folder must have settings."""
    files = Files(state_dir)
    settings = Settings.read(state_dir)
    if settings is None:
        raise LocalCloudError(
            f"{state_dir}: there are no settings; start the local cloud with `pulumi-vllm local up`"
        )
    lock = lock_file(files.lock)
    if lock is None:
        raise LocalCloudError(f"{state_dir}: another process serves it; see `pulumi-vllm local status`")
    with lock, contextlib.suppress(KeyboardInterrupt):
        machines = make(state_dir, ImageCache(Path(settings.engine_locks), settings.release))
        asyncio.run(_serve(state_dir, settings, machines, machines.gateway))
    return 0


def main(argv: list[str]) -> int:
    """Run as the detached process; the one argument is the state folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return run(Path(argv[0]))
    except (LocalCloudError, OSError, RuntimeError, ValueError) as error:
        LOG.error("%s", error)  # noqa: TRY400 (the message explains itself)
        return 1
    except Exception as error:
        # The message alone explains a machine error; anything else needs its traceback.
        LOG.exception("%s", error)  # noqa: TRY401 (the last line of the log is what `up` shows)
        LOG.error("%s", error)  # noqa: TRY400 (the message explains itself)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
