"""Address ranges of clients, and the reserved ones that no client has. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


def command_to_admit(address: str, key: str = "allow", position: int = 0) -> str:
    """The command that writes an address into a list of `access` in the stack file."""
    bits = 128 if ":" in address else 32
    return f"pulumi config set --path 'pulumi-vllm:server.access.{key}[{position}]' {address}/{bits}"


SET_COMMAND: Final = command_to_admit("YOUR.ADDRESS")
"""The command that sets who may reach the server."""

_HINT: Final = "write an address range, as in YOUR.ADDRESS/32"

_EVERYBODY: Final = frozenset(map(ipaddress.ip_network, ("0.0.0.0/0", "::/0")))

# The registries of special addresses at IANA (2026-11) name each of them. Private ranges are left out, because clients
# in a VPN and those of the local cloud have such addresses.
_RESERVED: Final = {
    ipaddress.ip_network(text): purpose
    for purpose, texts in {
        "reserved for documentation": (
            "192.0.2.0/24",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "2001:db8::/32",
            "3fff::/20",
        ),
        "loopback": ("127.0.0.0/8", "::1/128"),
        "link-local": ("169.254.0.0/16", "fe80::/10"),
        "multicast": ("224.0.0.0/4", "ff00::/8"),
        "unspecified": ("0.0.0.0/8", "::/128"),
        "reserved": ("240.0.0.0/4",),
        "IPv4 inside IPv6": ("::ffff:0:0/96",),
    }.items()
    for text in texts
}
"""Network → what it is for."""


def client_range(value: object) -> str:
    """Return an address range from which clients can connect, in its usual form.

    Raises:
        ValueError: the text is not a range, or no client can have an address in it.
    """
    try:
        network = ipaddress.ip_network(str(value), strict=True)
    except ValueError as error:
        msg = f"{error}; {_HINT}"
        raise ValueError(msg) from error
    for reserved, purpose in _RESERVED.items():
        if network not in _EVERYBODY and _lies_in(network, reserved):
            msg = f"{network} is {purpose} ({reserved}), so no client connects from there; {_HINT}"
            raise ValueError(msg)
    return str(network)


def admits(ranges: Iterable[str], address: str) -> bool:
    """Whether one of the ranges contains the address. Traffic of the host with itself is always admitted."""
    client = ipaddress.ip_address(address.partition("%")[0])
    return client.is_loopback or any(client in ipaddress.ip_network(one) for one in ranges)


def _lies_in(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
    other: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)
