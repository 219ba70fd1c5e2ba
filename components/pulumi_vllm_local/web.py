"""Serve ASGI applications on our own sockets, and stop without waiting for idle connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import ASGIApp


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    sock.listen(128)
    return sock


class Server(uvicorn.Server):
    """A uvicorn server that does not handle signals."""

    def __init__(self, app: ASGIApp, *, dated: bool = True) -> None:
        """Serve an application; `dated` is false for one that sends its own Date header."""
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="on",
                proxy_headers=False,
                http="h11",
                ws="none",
                timeout_graceful_shutdown=2,
                date_header=dated,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


@contextlib.contextmanager
def serving(app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, dated: bool = True) -> Iterator[str]:
    """Serve from a thread until the block ends; yield the URL."""
    sock = listen(host, port)
    server = Server(app, dated=dated)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[sock]),), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError(f"the server on {host} stopped during its start; see the log")
            thread.join(0.005)
        yield f"http://{host}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


async def serve_all(servers: Sequence[tuple[Server, Sequence[socket.socket]]]) -> None:
    """Serve several applications in this loop; when one stops, stop the others."""
    tasks = [asyncio.create_task(server.serve(sockets=list(socks))) for server, socks in servers]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)
