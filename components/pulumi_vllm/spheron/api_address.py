"""Address and key of the rental API: the default address, and checks of what the user sets."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from pulumi_vllm.spheron.errors import CloudError

DEFAULT_URL = "https://app.spheron.ai"


@dataclass(frozen=True)
class Remedies:
    """Ends of messages: what to do about a key or a URL that does not work. They say where it comes from."""

    key: str = "check SPHERON_API_KEY"
    url: str = "check SPHERON_URL"


FROM_ENVIRONMENT = Remedies()


def checked_url(url: str, remedies: Remedies) -> tuple[str, bool]:
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
        raise CloudError(f"the API's URL: not a web address such as {DEFAULT_URL}; {remedies.url}")
    if parts.scheme == "http" and not loopback:
        message = f"the API's URL: http://{host} would send the API key unencrypted, use https"
        raise CloudError(f"{message}; {remedies.url}")
    port = f":{parts.port}" if parts.port else ""
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}{port}{parts.path.rstrip('/').removesuffix('/api')}", loopback


def checked_key(key: str, remedies: Remedies) -> str:
    """Return the API key.

    Raises:
        CloudError: it is empty or has characters that no key has.
    """
    if not key.strip():
        raise CloudError(f"the API key is empty; make one in the dashboard's settings (API); {remedies.key}")
    if not key.isascii() or not key.isprintable() or " " in key:
        message = "the API key has characters that no key has; copy it again, without spaces"
        raise CloudError(f"{message}; {remedies.key}")
    return key
