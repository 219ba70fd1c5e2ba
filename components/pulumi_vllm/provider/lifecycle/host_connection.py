"""The connection of a resource to its host, and the inputs and outputs that all resources on a host share."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Property, Values

if TYPE_CHECKING:
    from pulumi_vllm.host.facts import Facts
    from pulumi_vllm.host.ssh import Host

CONNECTION = Property(
    "object",
    "SSH connection to the host: host, port, user, hostKey and privateKey (secret).",
    required=True,
    silent=True,
)
INSTANCE_ID = Property(
    "string", "Id of the instance. Another instance replaces this resource.", required=True, replaces=True
)
REACHABLE = Property("boolean", "Whether the host answered over SSH during the last refresh.")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a host over SSH."""

    host: str
    private_key: str = field(repr=False)
    host_key: str | None = None
    port: int = 22
    user: str = "root"

    @classmethod
    def from_values(cls, call: Call, values: Values) -> "Connection":
        """Parse the input `connection`.

        Raises:
            UserError: the instance has no address yet.
        """
        connection = reveal(values.get("connection"))
        if not isinstance(connection, dict) or not connection.get("host"):
            raise UserError(f"{call.name}: the state holds no connection to the host; run `pulumi up` once")
        return cls(
            host=str(connection["host"]),
            private_key=str(connection["privateKey"]),
            host_key=connection.get("hostKey"),
            port=int(connection.get("port") or 22),
            user=str(connection.get("user") or "root"),
        )


async def connect_host(call: Call, values: Values) -> "Host":
    """Return the connection to the host that the input `connection` names.

    Raises:
        HostError: the host is unreachable, refuses our key, or shows another host key.
        UserError: the instance has no address yet.
    """
    from pulumi_vllm.host.ssh import Address  # asyncssh takes 0.2 s to import

    connection = Connection.from_values(call, values)
    address = Address(connection.host, connection.port, connection.user)
    return await call.session.hosts().get(address, connection.private_key, connection.host_key)


async def observe(
    call: Call,
    values: Values,
    *,
    paths: tuple[str, ...] = (),
    units: tuple[str, ...] = (),
    weights: str | None = None,
) -> "Facts | None":
    """Return the state of the host, or None, with a warning, when it can't be observed."""
    try:
        host = await connect_host(call, values)
        return await call.session.hosts().facts(host, paths=paths, units=units, weights=weights)
    except HostError as error:
        await call.warn(f"{call.name}: {error}; showing the state of the last refresh")
        return None
