"""What several resources share: the connection to a host, and waiting with a growing pause."""

from typing import Any

from pulumi_vllm.provider.plugin.resource import Call, Property, UserError, Values, reveal

CONNECTION = Property(
    "object",
    "How to reach the machine over SSH: host, port, user, hostKey and privateKey (secret).",
    required=True,
    silent=True,
)
INSTANCE_ID = Property(
    "string", "The machine; another one makes this resource anew.", required=True, replaces=True
)
REACHABLE = Property("boolean", "Whether the machine answered over SSH when last looked at.")

# Seconds between two looks at the API: quick at first, then sparing its 100 calls per 15 minutes and address.
_PAUSES_S = (1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0)

# Seconds between two looks at a unit of the host, over a connection that is there: most units are done within one.
_LOOKS_S = (0.3, 0.5, 1.0, 2.0)

USELESS = frozenset({"failed", "stopped"})  # the API has no call that starts a machine


class Taken(UserError):  # noqa: N818 (the name is the sentence)
    """The machine is not ours any more."""


def pause_s(attempt: int) -> float:
    """How long to wait before look number `attempt`, counted from 0."""
    return _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]


def look_s(attempt: int) -> float:
    """How long to wait before look number `attempt` at a unit, counted from 0."""
    return _LOOKS_S[min(attempt, len(_LOOKS_S) - 1)]


async def still_there(call: Call, values: Values) -> None:
    """Ask the cloud about a machine that does not answer.

    Raises:
        Taken: its provider took it back.
        UserError: it is stopped or failed, or has another address; waiting for it would never end.
    """
    machine = await call.session.ask(call.session.cloud().instance, str(values["instanceId"]))
    if machine is None or machine.gone:
        said = end_of(machine, str(values["instanceId"]))
        raise Taken(
            f"{call.name}: {said}; `pulumi up --refresh` rents another one, which goes on with what the volume has"
        )
    if machine.status in USELESS:
        raise UserError(f"{call.name}: {machine.name} is {machine.status}; {another(call)}")
    known = (reveal(values.get("connection")) or {}).get("host")
    if machine.address and known and machine.address != known:
        raise UserError(
            f"{call.name}: {machine.name} restarted with another address, {machine.address} instead of {known}; "
            "`pulumi up --refresh` goes on there"
        )


def end_of(machine: Any, machine_id: str) -> str:
    """What became of a machine that is gone, or (None) that the cloud does not list; its id finds it in the console."""
    if machine is None:
        return f"the cloud no longer lists the machine {machine_id}"
    if machine.status == "terminated-provider":
        return f"{machine.name} ({machine_id}) was reclaimed by the provider"
    return f"{machine.name} ({machine_id}) was ended, in the cloud's console or for want of credit"


def another(call: Call) -> str:
    """What a person does about a machine that will not run again; only its own resource knows its URN."""
    if call.urn.split("::")[2].rpartition("$")[2] == "vllm:spheron:Instance":
        return f"`pulumi up --replace '{call.urn}'` rents another"
    return "it is billed, and `pulumi refresh` says how another is rented"


async def host_of(call: Call, values: Values) -> Any:
    """A connection to the machine that `values["connection"]` names.

    Raises:
        HostError: it is unreachable, refuses our key, or shows another host key.
    """
    connection = reveal(values.get("connection"))
    if not isinstance(connection, dict) or not connection.get("host"):
        raise UserError(f"{call.name}: no connection in state; run `pulumi up` once")
    from pulumi_vllm.host.ssh import Address  # asyncssh takes 0.2 s

    address = Address(connection["host"], int(connection.get("port") or 22), connection.get("user") or "root")
    return await call.session.hosts().get(address, connection["privateKey"], connection.get("hostKey"))
