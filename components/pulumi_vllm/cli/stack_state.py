"""A stack's state as `reconcile` needs it: the server in it, its machine, and who changed the stack last."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pulumi_vllm.client.pulumi_cli import PulumiCliError, pulumi_output
from pulumi_vllm.plan.recovery import Machine, Policy

MESSAGE_START: Final = "pulumi-vllm reconcile: "
"""How the message begins of an update that `reconcile` runs. The stack's history holds it."""

_TIMEOUT_S = 300.0
_IN_STATE: Final = {
    "terminated-provider": Machine.TAKEN,
    "terminated": Machine.ENDED_ELSEWHERE,
    "stopped": Machine.UNUSABLE,
    "failed": Machine.UNUSABLE,
}


class StackStateError(Exception):
    """The state or the history of the stack cannot be read, or holds what `reconcile` does not handle."""


@dataclass(frozen=True, slots=True)
class LastUpdate:
    """The last update in the stack's history."""

    kind: str
    """update, destroy, refresh and so on."""
    result: str
    message: str

    @property
    def ours(self) -> bool:
        """Whether `reconcile` ran it."""
        return self.message.startswith(MESSAGE_START)


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server of a stack, as its state holds it."""

    stack: str
    project: str
    name: str
    urn: str
    policy: Policy
    instance_urn: str | None
    instance_id: str | None
    """None while the state has no machine, or one whose replacement has not been rented yet."""
    instance_inputs: Mapping[str, Any]
    served_instance: str | None
    """Id of the machine on which the service was ready last."""
    volume_id: str | None
    downloaded_bytes: int | None
    """What the last update downloaded of the weights."""

    @property
    def ends_itself(self) -> bool:
        """Whether the machine powers off when its period is over, or when nobody uses it."""
        return bool(self.instance_inputs.get("expiresS") or self.instance_inputs.get("idleStopS"))

    @property
    def last_up(self) -> str | None:
        """When the period of the machine began (ISO 8601)."""
        return self.instance_inputs.get("lastUp")

    @property
    def period_is_over(self) -> bool:
        """Whether the period has ended, by this computer's clock, which dated its begin too."""
        if not self.last_up:
            return False
        age_s = time.time() - datetime.fromisoformat(self.last_up).timestamp()
        return age_s >= float(self.instance_inputs.get("expiresS") or math.inf)

    @property
    def machine_name(self) -> str:
        """Name of the machine's resource in the program."""
        return f"{self.name}-machine"

    @property
    def machine_urn(self) -> str:
        """URN of the machine, also of one that the state does not hold."""
        server, _, _ = self.urn.rpartition("::")
        return self.instance_urn or f"{server}$vllm:spheron:Instance::{self.machine_name}"


def read_server(stack: str) -> ServerState | None:
    """Return the server in the stack of the project in this folder; None if nothing is deployed.

    Raises:
        StackStateError: the state cannot be read, or there are several servers.
    """
    return server_in(exported(stack))


def exported(stack: str) -> dict[str, Any]:
    """Return the JSON of `pulumi stack export`. The secrets in it are encrypted.

    Raises:
        StackStateError: the state cannot be read.
    """
    document: dict[str, Any] = json.loads(_pulumi(stack, "stack", "export"))
    return document


def last_update(stack: str) -> LastUpdate | None:
    """Return the last update of the stack.

    Raises:
        StackStateError: the history cannot be read.
    """
    listed = json.loads(
        _pulumi(stack, "stack", "history", "--json", "--page-size", "1", "--page", "1") or "[]"
    )
    if not listed:
        return None
    newest = listed[0]
    return LastUpdate(
        str(newest.get("kind")), str(newest.get("result")), str(newest.get("message") or "").strip()
    )


def server_in(document: Mapping[str, Any]) -> ServerState | None:
    """Read the JSON of `pulumi stack export`.

    Raises:
        StackStateError: there are several servers, or an earlier version made the state.
    """
    resources = [
        one for one in (document.get("deployment") or {}).get("resources") or [] if not one.get("delete")
    ]
    servers = [one for one in resources if one.get("type") == "vllm:index:Server"]
    if not servers:
        return None
    if len(servers) > 1:
        names = ", ".join(str(one["urn"]).rpartition("::")[2] for one in servers)
        raise StackStateError(
            f"the stack has {len(servers)} servers ({names}); reconcile handles one per stack"
        )
    server = servers[0]
    urn = str(server["urn"])
    stack, project, *_, name = urn.removeprefix("urn:pulumi:").split("::")
    if any(one.get("type") == "vllm:host:Machine" and one.get("parent") == urn for one in resources):
        raise StackStateError(
            f"the machine of {name} was made by somebody else (server.machine.cloud: none), so reconcile rents none; "
            "repair or replace it where it was made, then run `pulumi up`"
        )
    recovery = (server.get("inputs") or {}).get("recovery")
    if not recovery:
        raise StackStateError(
            "the state holds no policy, as after an update with an earlier version; run `pulumi up` once"
        )
    children = {str(one["type"]): one for one in resources if one.get("parent") == urn}
    instance = children.get("vllm:spheron:Instance", {})
    service = children.get("vllm:host:Service", {})
    weights = children.get("vllm:host:Weights", {})
    volume = children.get("vllm:spheron:Volume", {})
    downloaded = (weights.get("outputs") or {}).get("downloadedBytes")
    return ServerState(
        stack=stack,
        project=project,
        name=name,
        urn=urn,
        policy=Policy.from_json(recovery),
        instance_urn=instance.get("urn"),
        instance_id=None if instance.get("pendingReplacement") else instance.get("id"),
        instance_inputs=instance.get("inputs") or {},
        served_instance=(service.get("inputs") or {}).get("instanceId") if service.get("id") else None,
        volume_id=volume.get("id"),
        downloaded_bytes=None if downloaded is None else int(downloaded),
    )


def machine_of(server: ServerState, statuses: Mapping[str, str], last: LastUpdate | None) -> Machine:
    """What is known of the server's machine, from its state, the cloud's statuses by id, and the last update.

    The statuses are those of all machines that were ever rented for this server, the oldest first.
    """
    failed = last is not None and last.ours and last.result != "succeeded"
    if server.instance_id is not None:
        ready = server.served_instance == server.instance_id and not failed
        status = statuses.get(server.instance_id, "terminated")
        ended_itself = server.ends_itself and status in {"stopped", "terminated"}
        if ended_itself or (server.period_is_over and status in _IN_STATE):
            return Machine.NOT_NEEDED
        return _IN_STATE.get(status) or (Machine.RUNS if ready else Machine.UNFINISHED)
    if any(status in {"deploying", "running"} for status in statuses.values()):
        return Machine.UNFINISHED
    if last is not None and last.kind == "destroy" and not last.ours:
        return Machine.ENDED
    newest = next(reversed(list(statuses.values())), None)
    return Machine.TAKEN if newest == "terminated-provider" else Machine.HELD


def _pulumi(stack: str, *words: str) -> str:
    try:
        return pulumi_output(*words, "--stack", stack, timeout_s=_TIMEOUT_S)
    except PulumiCliError as error:
        raise StackStateError(f"{stack}: {error}") from None
