"""The network of the guests: a bridge with an IPv4 network behind NAT and a unique local IPv6 prefix."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm_local import json_files
from pulumi_vllm_local.machines import processes
from pulumi_vllm_local.machines.names import Names, free_subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path("/run/pulumi-vllm-local")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class NetworkError(Exception):
    """The network failed; the message says what could not be set up and what to do."""


class Network:
    """The network of one state folder; `up` and `down` are idempotent."""

    def __init__(self, state_dir: Path) -> None:
        self._names = Names.of(state_dir)
        self._record = state_dir / "network.json"
        self._lock = threading.Lock()
        self._up = False

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """Return the IPv4 network, which is chosen once and recorded."""
        found = json_files.read(self._record)
        if found:
            return ipaddress.IPv4Network(found["subnet"])
        chosen = free_subnet(self._names.subnets(), _routes(but=self._names.bridge))
        if chosen is None:
            raise NetworkError(
                "local cloud: all 64 candidate networks in 10.64.0.0/10 are in use on this computer; remove some routes"
            )
        json_files.write(self._record, {"subnet": str(chosen)})
        return chosen

    @property
    def gateway(self) -> str:
        """Return the IPv4 address of the bridge."""
        return str(self.subnet[1])

    @property
    def gateway6(self) -> str:
        """Return the IPv6 address of the bridge."""
        return str(self._names.prefix6()[1])

    def address(self, number: int) -> str:
        """Return the IPv4 address of a guest."""
        return str(self.subnet[number])

    def address6(self, number: int) -> str:
        """Return the IPv6 address of a guest."""
        return str(self._names.prefix6()[number])

    def up(self) -> None:
        """Create the bridge and the NAT table, and enable forwarding."""
        with self._lock, _between_processes():
            if self._up and Path(f"/sys/class/net/{self._names.bridge}").exists():
                return
            bridge = self._names.bridge
            if not Path(f"/sys/class/net/{bridge}").exists():
                taken = _routes(but=bridge)
                if free_subnet((self.subnet,), taken) is None:
                    raise NetworkError(
                        f"local cloud: another interface of this computer now uses its network {self.subnet}; "
                        "run `pulumi-vllm local down` and start again",
                    )
                processes.run("ip", "link", "add", bridge, "type", "bridge")
            processes.run("ip", "addr", "replace", f"{self.gateway}/24", "dev", bridge)
            with contextlib.suppress(processes.CommandError):  # no IPv6 on this computer
                processes.run("ip", "-6", "addr", "replace", f"{self.gateway6}/64", "dev", bridge, "nodad")
            processes.run("ip", "link", "set", bridge, "up")
            processes.run("nft", "-f", "-", stdin=nat_table(self._names.table, bridge, str(self.subnet)))
            self._forward()
            _accept_in_firewall(bridge, add=True)
            self._up = True

    def down(self) -> None:
        """Remove everything; the last local cloud also restores the forwarding setting."""
        with self._lock, _between_processes():
            bridge = self._names.bridge
            _accept_in_firewall(bridge, add=False)
            processes.run("nft", "delete", "table", "inet", self._names.table, check=False)
            processes.run("ip", "link", "del", bridge, check=False)
            before = SHARED / "ip_forward"
            if before.exists() and not _other_bridges(bridge):
                FORWARD.write_text(before.read_text(encoding="ascii"), encoding="ascii")
                before.unlink()
            self._record.unlink(missing_ok=True)
            self._up = False

    def link(self, name: str, *, up: bool) -> None:
        """Set the link of a guest up or down."""
        processes.run("ip", "link", "set", name, "up" if up else "down", check=False)

    def remove_link(self, name: str) -> None:
        """Remove the link of a guest that is gone."""
        if Path(f"/sys/class/net/{name}").exists():
            processes.run("ip", "link", "del", name, check=False)

    @staticmethod
    def _forward() -> None:
        found = FORWARD.read_text(encoding="ascii").strip()
        if found != "1":
            (SHARED / "ip_forward").write_text(found, encoding="ascii")
            FORWARD.write_text("1", encoding="ascii")


def sends_banner(address: str, port: int) -> bool:
    """Return whether an sshd answers at an address."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 0.5) as connection:
        connection.settimeout(0.5)
        return connection.recv(4) == b"SSH-"
    return False


def nat_table(table: str, bridge: str, subnet: str) -> str:
    """Return the nftables rules, in a table of our own that can be removed as a whole."""
    return f"""table inet {table}
delete table inet {table}
table inet {table} {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" accept
    oifname "{bridge}" accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} ip daddr != {subnet} masquerade
  }}
}}
"""


def firewall_rules(bridge: str, forward: str, chains: str) -> tuple[tuple[str, ...], ...]:
    """Return the iptables rules that admit the guests where the firewall drops forwarded packets.

    An accept in our table does not undo a drop in another one. If the policy is DROP, as with Docker, the rules go into
    the chain that Docker leaves to its users, otherwise to the top of FORWARD.
    """
    if "-P FORWARD DROP" not in forward:
        return ()
    chain = "DOCKER-USER" if "-N DOCKER-USER" in chains else "FORWARD"
    return ((chain, "-i", bridge, "-j", "ACCEPT"), (chain, "-o", bridge, "-j", "ACCEPT"))


def _accept_in_firewall(bridge: str, *, add: bool) -> None:
    for program in ("iptables", "iptables-legacy"):
        try:
            chains = processes.run(program, "-w", "5", "-S", check=False)
        except FileNotFoundError:
            continue
        if add:
            for chain, *rule in firewall_rules(bridge, chains, chains):
                if f"-A {chain} {' '.join(rule)}" not in chains:
                    processes.run(program, "-w", "5", "-I", chain, *rule, check=False)
        else:
            for line in chains.splitlines():
                words = line.split()
                if bridge in words and words[0] == "-A":
                    processes.run(program, "-w", "5", "-D", *words[1:], check=False)


def _routes(*, but: str) -> tuple[str, ...]:
    found = json.loads(processes.run("ip", "-j", "-4", "route", "show", "table", "all") or "[]")
    kinds = {"local", "broadcast", "multicast"}
    return tuple(
        route["dst"] for route in found if route.get("dev") != but and route.get("type") not in kinds
    )


def _other_bridges(bridge: str) -> bool:
    return any(path.name != bridge for path in Path("/sys/class/net").glob("pvllm-*"))


@contextlib.contextmanager
def _between_processes() -> Iterator[None]:
    SHARED.mkdir(parents=True, exist_ok=True)
    with (SHARED / "network.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
