"""Address and key of the rental API: the default address, and checks of what the user sets."""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit

from pulumi_vllm.spheron.errors import CloudError

DEFAULT_URL = "https://app.spheron.ai"


def checked_url(url: str) -> tuple[str, bool]:
    """Return the base URL without credentials, and whether it is on this machine's loopback.

    Raises:
        CloudError: it is not a web address, or would send the key without TLS over a network.
    """
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    loopback = host == "localhost"
    with contextlib.suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(host).is_loopback
    if parts.scheme not in {"http", "https"} or not host:
        raise CloudError(f"SPHERON_URL: not a web address; use {DEFAULT_URL} or leave it out")
    if parts.scheme == "http" and not loopback:
        raise CloudError(f"SPHERON_URL: http://{host} would send the API key unencrypted; use https")
    port = f":{parts.port}" if parts.port else ""
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}{port}{parts.path.rstrip('/').removesuffix('/api')}", loopback


def checked_key(key: str) -> str:
    """Return the API key.

    Raises:
        CloudError: it is empty or has characters that no key has.
    """
    if not key.strip():
        raise CloudError("SPHERON_API_KEY: empty; make a key in the dashboard's settings (API) and set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CloudError("SPHERON_API_KEY: has characters that no key has; copy it again, without spaces")
    return key
