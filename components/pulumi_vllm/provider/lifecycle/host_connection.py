"""Resources on a host: connection, shared inputs and outputs, and what they do when the host is unreachable."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pulumi_vllm.host.errors import HostError, HostKeyChanged, Unreachable
from pulumi_vllm.plan.defaults import UNREACHABLE, UNREACHABLE_CHOICES
from pulumi_vllm.provider.lifecycle.access import way_back
from pulumi_vllm.provider.lifecycle.instance_liveness import is_rented
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Resource, Values

if TYPE_CHECKING:
    from collections.abc import Collection

    from pulumi_vllm.host.drift import Difference
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
OBSERVED: Final = {"observed": "yes"}
"""The inputs of a resource whose host was observed."""
_NOT_OBSERVED: Final = "no: "
_OTHER_HOST_KEY: Final = "other host key: "
SHARED_INPUTS: Final = {
    "observed": Property(
        "string",
        f"Whether the last refresh observed the host (default: {OBSERVED['observed']}); otherwise the reason.",
    ),
    "unreachable": Property(
        "string",
        f"{' or '.join(UNREACHABLE_CHOICES)}: whether a host that can't be observed is a difference "
        f"(default: {UNREACHABLE}).",
        silent=True,
    ),
}
DIFFERENCES = Property(
    "object", "What else on the host is not as declared, by subject (default: nothing).", of="string"
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
) -> "Facts | NotObserved":
    """Return the state of the host, or why it can't be observed, with a warning."""
    try:
        host = await connect_host(call, values)
        return await call.session.hosts().facts(host, paths=paths, units=units, weights=weights)
    except HostError as error:
        if isinstance(error, Unreachable) and await _is_stopped(call, values):
            return NotObserved(f"{_NOT_OBSERVED}the instance is stopped")  # the instance itself warns of it
        hint = way_back(values) if isinstance(error, Unreachable) else ""
        await call.warn(f"{call.name}: {error}{hint}; showing the state of the last refresh")
        kind = _OTHER_HOST_KEY if isinstance(error, HostKeyChanged) else _NOT_OBSERVED
        return NotObserved(f"{kind}{error}")


async def _is_stopped(call: Call, values: Values) -> bool:
    """Whether the cloud reports the instance as stopped. A cloud that does not answer reports nothing."""
    if not is_rented(values):
        return False
    from pulumi_vllm.spheron.errors import CloudError  # requests takes 0.1 s to import

    try:
        instance = await call.session.ask(call.session.cloud().instances.get, str(values.get("instanceId")))
    except CloudError:
        return False
    return instance is not None and instance.status == "stopped"


async def report(call: Call, found: "Collection[Difference]") -> Values:
    """Warn of each difference. Return the input `differences`."""
    for one in found:
        await call.warn(f"{call.name}: {one.sentence}")
    return {"differences": {one.subject: one.observed for one in found}}


async def repair(call: Call, host: "Host", found: "Collection[Difference]") -> None:
    """Run the commands that repair the differences."""
    commands = dict.fromkeys(command for one in found for command in one.commands)
    if commands:
        await call.progress("; ".join(commands)[:200])
        await host.run("\n".join(commands), timeout_s=180)


@dataclass(frozen=True, slots=True)
class Done:
    """An update that is complete apart from what `up` leaves alone."""

    resource_id: str
    outputs: Values


def refuse(call: Call, left: "Collection[Difference]", *, done: Done | None = None) -> None:
    """Fail with what is still different, because the next preview would show it again.

    Raises:
        Partial: something is. What is done stays in the state, so the next `up` does not do it again.
        UserError: something is, and nothing is done.
    """
    if left:
        message = f"{call.name}: {'. '.join(one.sentence for one in left)}"
        raise Partial(message, done.resource_id, done.outputs) if done else UserError(message)


async def partly(call: Call, reason: str | None) -> Values:
    """Return the input `observed` of a host that answered. Warn of what was not observed there."""
    if reason is None:
        return OBSERVED
    await call.warn(f"{call.name}: {reason}")
    return {"observed": f"{_NOT_OBSERVED}{reason}"}


@dataclass(frozen=True, slots=True)
class NotObserved:
    """A host that could not be observed."""

    reason: str
    """Value of the input `observed`."""

    def reading(self, outputs: Values, inputs: Values) -> Reading:
        """Return the last known state, with an input that differs from the declared one."""
        return Reading({**outputs, "reachable": False}, {**inputs, "observed": self.reason})


class HostResource(Resource):
    """A resource on a host. A refresh that could not observe the host leaves a difference."""

    cannot_import = (
        "an import does not know how to reach the host; import the instance and the volume only, and `pulumi up` takes "
        "over what is on the host"
    )

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Add the defaults of the shared inputs. With `unreachable: warn`, an unreachable host is no difference."""
        new.setdefault("observed", OBSERVED["observed"])
        new.setdefault("unreachable", UNREACHABLE)
        if new["unreachable"] not in UNREACHABLE_CHOICES and not has_unknown(new["unreachable"]):
            return [Failure("unreachable", f"must be {' or '.join(UNREACHABLE_CHOICES)}")]
        last = str((old or {}).get("observed") or "")
        if new["unreachable"] == "warn" and last.startswith(_NOT_OBSERVED):
            new["observed"] = last
        return []

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Refuse a changed host key in a preview already, because the update can't send anything to such a host."""
        self.refuse_other_host_key(call, old)
        return await super().preview_update(call, old, new)

    def refuse_other_host_key(self, call: Call, old: Values) -> None:
        """Fail where the last refresh saw another host key than the pinned one.

        Raises:
            UserError: it did.
        """
        last = str(old.get("observed") or "")
        if last.startswith(_OTHER_HOST_KEY):
            raise UserError(f"{call.name}: {last.removeprefix(_OTHER_HOST_KEY)}")

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Change the host. Where only a refresh failed, observe the host again, and change only what differs."""
        if set(self.compare(old, new)) == {"observed"}:
            await connect_host(call, new)
            reading = await self.read(call, resource_id, old, new)
            if reading is not None:
                if not reading.outputs["reachable"]:
                    raise UserError(f"{call.name}: {reading.inputs['observed'].partition(': ')[2]}")
                if not self.compare(reading.inputs, new):
                    return reading.outputs
                old = {**old, **reading.inputs}
        return await self.change(call, resource_id, old, new)

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Make the host as `new` declares it. Returns the outputs."""
        raise NotImplementedError(self.token)
