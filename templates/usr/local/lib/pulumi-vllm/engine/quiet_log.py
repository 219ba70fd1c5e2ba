"""Keep the gateway's health checks and the canary's looks at the counters out of vLLM's log.

They come every second and every 30 s: 43 % of the journal of a server in use, and all of one that nobody uses. A check
that fails is logged.
"""

from __future__ import annotations

import logging

_OURS = {("GET", "/health", 200), ("GET", "/metrics", 200)}
"""Method, path and status."""


def is_logged(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's access log is written. It is made of client, method, path, version and status."""
    try:
        _client, method, path, _version, status = record.args or ()
    except ValueError:  # another version of uvicorn writes other lines
        return True
    return (method, path, status) not in _OURS


def install() -> None:
    """Filter uvicorn's access log of this process."""
    logging.getLogger("uvicorn.access").addFilter(is_logged)
