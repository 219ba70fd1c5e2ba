"""Who may reach a host, and whether the computer that manages it belongs to them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan.address_ranges import admits, command_to_admit
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Property, Values

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

ACCESS: Final = Property(
    "object",
    "Address ranges that the firewall of the host admits: allow for the gateway, sshAllow for SSH (default: those of "
    "allow). An empty sshAllow closes SSH for everybody.",
    of="any",
)

_EVERYBODY: Final = ("0.0.0.0/0", "::/0")
_WAY_BACK: Final = "docs/how-to/regain-access.md says how to get back in without another machine"


@dataclass(frozen=True, slots=True)
class Access:
    """The address ranges that a stack file declares."""

    allow: tuple[str, ...]
    ssh_allow: tuple[str, ...] | None

    @classmethod
    def from_values(cls, values: Values) -> "Access | None":
        """Parse the input `access`. Without it, nothing is known about who may reach the host."""
        access = reveal(values.get("access"))
        if not isinstance(access, dict) or not access.get("allow") or has_unknown(access):
            return None
        ssh_allow = access.get("sshAllow")
        return cls(tuple(access["allow"]), None if ssh_allow is None else tuple(ssh_allow))

    @property
    def ssh(self) -> tuple[str, ...]:
        """The address ranges that may reach SSH."""
        return self.allow if self.ssh_allow is None else self.ssh_allow

    @property
    def ssh_key(self) -> str:
        """The key of `access` in the stack file that decides who may reach SSH."""
        return "allow" if self.ssh_allow is None else "ssh_allow"

    def locks_out(self, client: str) -> str | None:
        """Say why this computer could not reach the host any more, and how to admit it. None if it still could.

        An empty list says explicitly that nobody may reach SSH, so it is obeyed. `client` is the address from which
        the host sees this computer.
        """
        if not client or not self.ssh or admits(self.ssh, client):
            return None
        command = command_to_admit(client, self.ssh_key, len(self.ssh))
        return (
            f"server.access.{self.ssh_key} admits {', '.join(self.ssh)} to SSH, but the host sees this computer as "
            f"{client}; admit it with: {command}"
        )


def way_back(values: Values) -> str:
    """Return a hint for a host that does not answer: its firewall may no longer admit this computer."""
    access = Access.from_values(values)
    if access is None or any(one in _EVERYBODY for one in access.ssh):
        return ""
    if not access.ssh:
        return f"; server.access.ssh_allow is empty, so its firewall admits nobody to SSH: {_WAY_BACK}"
    return (
        f"; its firewall admits SSH from {', '.join(access.ssh)} only (server.access.{access.ssh_key}): if this "
        f"computer has another address now, {_WAY_BACK}"
    )


async def lock_out(values: Values, host: "Host") -> str | None:
    """Say why the declared ranges would lock out this computer, from which the host is being managed."""
    access = Access.from_values(values)
    return None if access is None else access.locks_out(await host.client_address())


async def refuse_lock_out(name: str, values: Values, host: "Host") -> None:
    """Refuse firewall rules that would lock this computer out, before they are loaded.

    Raises:
        UserError: they would.
    """
    reason = await lock_out(values, host)
    if reason:
        raise UserError(
            f"{name}: these firewall rules would lock this computer out, so they were not loaded: {reason}"
        )
