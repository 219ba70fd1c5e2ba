"""TLS to the gateway on this host, as a client speaks it."""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib.parse import SplitResult


class GatewayConnection(http.client.HTTPSConnection):
    """TLS to one address, whose certificate is checked against another name. Without a name only the chain counts."""

    def __init__(self, url: SplitResult, name: str | None, tls: ssl.SSLContext, timeout: float) -> None:
        super().__init__(url.hostname or "", url.port or 443, timeout=timeout, context=tls)
        self.name, self.tls = name or url.hostname, tls

    def connect(self) -> None:
        """Connect, then start TLS for the name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.name)


def gateway_tls(ca: str, name: str | None) -> ssl.SSLContext:
    """Trust the gateway's CA. Raises OSError or ssl.SSLError if the file cannot be used."""
    tls = ssl.create_default_context(cafile=ca)
    # The file may hold the gateway's own certificate, whose authority only the clients know.
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # A certificate for the public address need not name loopback.
    tls.check_hostname = bool(name)
    return tls
