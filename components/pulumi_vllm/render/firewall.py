"""nftables rules that admit the stack file's address ranges to the gateway and to SSH."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from pulumi_vllm.render.layout import GATEWAY_PORT, SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable


def rules(gateway: Iterable[str], ssh: Iterable[str]) -> tuple[str, ...]:
    """Accepting rules, at most one per port and address family."""
    return (*_rules_of_port(GATEWAY_PORT, gateway), *_rules_of_port(SSH_PORT, ssh))


def _rules_of_port(port: int, ranges: Iterable[str]) -> list[str]:
    networks = [ipaddress.ip_network(network) for network in ranges]
    ipv4 = ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv4Network))
    ipv6 = ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv6Network))
    accepting = []
    for keyword, family, allowed in (("ip", "ipv4", list(ipv4)), ("ip6", "ipv6", list(ipv6))):
        if not allowed:
            continue
        everyone = any(network.prefixlen == 0 for network in allowed)
        addresses = ", ".join(map(str, allowed))
        source = f"meta nfproto {family}" if everyone else f"{keyword} saddr {{ {addresses} }}"
        accepting.append(f"{source} tcp dport {port} accept")
    return accepting
