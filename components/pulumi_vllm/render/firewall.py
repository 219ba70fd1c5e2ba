"""nftables rules: which address ranges reach the gateway and SSH, and which vLLM itself does not reach."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from pulumi_vllm.render.layout import GATEWAY_PORT, SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_PUBLIC: Final = {
    4: (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
    ),
    6: ("::/127", "::ffff:0.0.0.0/96", "64:ff9b::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "ff00::/8"),
}
"""Ranges by IP version that are this host, its network, or a way to write such an address (IANA's registries of
special-purpose addresses, RFC 6890). The metadata service of every cloud is at a link-local address."""


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
