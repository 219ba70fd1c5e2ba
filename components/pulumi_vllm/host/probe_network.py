"""Part of the probe: firewall rules and listening sockets."""

# ruff: noqa: PLR2004

import re
import socket
import sys
from typing import Any

from pulumi_vllm.host.probe_reading import text

# How nft prints a rule of its own or of iptables that sends packets to another address or port. firewalld has a rule
# `ct status dnat accept` always, which sends nothing anywhere.
FORWARDING = r"(?<!ct status )\b(dnat|redirect|DNAT|REDIRECT)\b"


_APART, _LISTED = "in a network of its own", "# listed"


def loaded(nft: str) -> str:
    """Return the script that prints the rules in the kernel. A host without any rule prints the last line too."""
    return f"{nft} -s list ruleset && echo '{_LISTED}'"


def apart(nft: str, rules: str, table: str) -> str:
    """Return the script that prints the rules of a file as nft does, in a network that `unshare` has made for it."""
    return f"echo {_APART}; {nft} -f {rules} && {nft} -s list table {table}; exit 0"


def firewall(rules: str, declared: str, table: str) -> dict[str, Any]:
    """Return our table in the kernel, the one that its file gives, and foreign rules that forward ports.

    `rules` is the output of the script of `loaded`, `declared` that of `apart`.
    """
    entered, _, declared = declared.partition("\n")
    found = re.search(rf"^table {re.escape(table)} \{{.*?^\}}$", rules, re.MULTILINE | re.DOTALL)
    ours = found[0].strip() if found else ""
    others = rules.replace(ours, "") if ours else rules
    forwarding = [line.strip() for line in others.splitlines() if re.search(FORWARDING, line)]
    return {
        "listed": rules.rstrip().endswith(_LISTED),
        "apart": entered == _APART,
        "rules": ours,
        "declared": declared.strip(),
        "forwarding": forwarding[:20],
    }


def listening() -> list[tuple[str, int]]:
    """Return address and port of every listening TCP socket."""
    found = set()
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in text(path).splitlines()[1:]:
            fields = line.split()
            if len(fields) >= 4 and fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                found.add((ip(address, family), int(port, 16)))
    return sorted(found)


def ip(hexadecimal: str, family: int) -> str:
    """Format an address, which the kernel prints as 32-bit words in the byte order of the host."""
    words = [bytes.fromhex(hexadecimal[at : at + 8]) for at in range(0, len(hexadecimal), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return socket.inet_ntop(family, b"".join(words))
