"""The names of bridges, groups and tables, derived from the state folder, so that two local clouds never collide."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FIRST_GUEST = 10
LAST_GUEST = 250


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one state folder."""

    digest: str

    @classmethod
    def of(cls, state_dir: Path) -> Names:
        """Derive the names from the real path of the folder."""
        return cls(hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest())

    @property
    def short(self) -> str:
        """Return the part of the digest that names contain."""
        return self.digest[:8]

    @property
    def bridge(self) -> str:
        """Return the name of the bridge; interface names have at most 15 characters."""
        return f"pvllm-{self.short}"

    @property
    def table(self) -> str:
        """Return the name of the nftables table (family inet)."""
        return f"pvllm_{self.short}"

    @property
    def cgroup(self) -> str:
        """Return the name of the control group above all guests of this folder."""
        return f"pvllm-{self.short}"

    def machine(self, machine_id: str) -> str:
        """Return the name of a machine for nspawn, which shortens link names above 11 characters."""
        return f"{self.digest[:4]}g{hashlib.sha256(machine_id.encode()).hexdigest()[:6]}"

    def link(self, machine_id: str) -> str:
        """Return the name that nspawn gives to the network link of a machine."""
        return f"vb-{self.machine(machine_id)}"

    def subnets(self) -> tuple[ipaddress.IPv4Network, ...]:
        """Return the candidate IPv4 networks, the preferred one first."""
        start = int(self.digest[:8], 16)
        # 10.64 to 10.127: company networks are usually below, and container networks above.
        picks = [(start + step * 7919) % (64 * 256) for step in range(64)]
        return tuple(ipaddress.IPv4Network(f"10.{64 + pick // 256}.{pick % 256}.0/24") for pick in picks)

    def prefix6(self) -> ipaddress.IPv6Network:
        """Return the unique local IPv6 network: fd00::/8 with 56 bits of the digest."""
        digits = self.digest[8:22]
        return ipaddress.IPv6Network(f"fd{digits[:2]}:{digits[2:6]}:{digits[6:10]}:{digits[10:14]}::/64")


def free_subnet(
    candidates: tuple[ipaddress.IPv4Network, ...], taken: tuple[str, ...]
) -> ipaddress.IPv4Network | None:
    """Return the first network that overlaps no route of this computer."""
    routes = [
        ipaddress.IPv4Network(text, strict=False) for text in taken if text not in {"default", "0.0.0.0/0"}
    ]
    # A route for 10/8 or more is a company network behind a VPN. Our more specific route hides 256 of its addresses,
    # which is better than no local cloud.
    close = [route for route in routes if route.prefixlen > 8]  # noqa: PLR2004
    for candidate in candidates:
        if not any(candidate.overlaps(route) for route in close):
            return candidate
    return None


def free_number(taken: set[int], after: int) -> int | None:
    """Return the next free host number, round robin, so that a new machine gets no recently used address."""
    span = LAST_GUEST - FIRST_GUEST + 1
    for step in range(1, span + 1):
        number = FIRST_GUEST + (after - FIRST_GUEST + step) % span
        if number not in taken:
            return number
    return None
