"""Address ranges of a stack file as nftables rules. Knows two ports: the gateway's and SSH's."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GATEWAY, SSH = 443, 22


def rules(gateway: Iterable[str], ssh: Iterable[str]) -> tuple[str, ...]:
    """Accepting rules, one per port and address family."""
    return (*_port(GATEWAY, gateway), *_port(SSH, ssh))


def _port(port: int, ranges: Iterable[str]) -> list[str]:
    networks = [ipaddress.ip_network(one) for one in ranges]
    four = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    found = []
    for keyword, family, kept in (("ip", "ipv4", list(four)), ("ip6", "ipv6", list(six))):
        if not kept:
            continue
        anyone = any(one.prefixlen == 0 for one in kept)
        source = f"meta nfproto {family}" if anyone else f"{keyword} saddr {{ {', '.join(map(str, kept))} }}"
        found.append(f"{source} tcp dport {port} accept")
    return found
