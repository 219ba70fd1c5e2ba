"""The arguments of a Server, and their validation. Every error in them is reported at once."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pulumi

from pulumi_vllm.component import api_keys, gateway_certificate, host_argument
from pulumi_vllm.plan import Plan, PlanError, plan
from pulumi_vllm.plan.address_ranges import SET_COMMAND
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.suggestions import suggestion


class HostCommand(TypedDict):
    """A command of your own on the host. pulumi-command runs it as the machine's login user, who may use sudo."""

    name: str
    """Part of the resource's name: lower-case letters, digits, hyphens."""
    create: pulumi.Input[str]
    """Runs when the server is ready, again when this command changes, and on every new machine."""
    delete: NotRequired[pulumi.Input[str]]
    """Runs before the machine is deleted, or before the command is removed. It may run twice."""
    stdin: NotRequired[pulumi.Input[str]]
    """Standard input of `create` and `delete`. Pass secrets here, never in the command itself."""


class ServerArgs(TypedDict):
    """The arguments of a Server."""

    server: Mapping[str, Any]
    """The block of a stack file under `pulumi-vllm:server`: model, machine, context, access."""
    host: NotRequired[host_argument.Host]
    """With `machine.cloud: none`: the machine that somebody else made."""
    keys: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    """API keys by name (secret). A name in server.access.keys without a value here gets a random key."""
    hf_token: NotRequired[pulumi.Input[str]]
    """Token for the model hub (secret), where the repository is gated."""
    notify_url: NotRequired[pulumi.Input[str]]
    """Address that gets a POST with a JSON message when vLLM or the gateway has failed for good (secret)."""
    ssh_private_key: NotRequired[pulumi.Input[str]]
    """Private SSH key to use (secret). By default one is created and kept in state."""
    tls_certificate: NotRequired[pulumi.Input[str]]
    """A custom certificate for server.access.hostname, PEM, with its chain. By default the own CA issues one."""
    tls_private_key: NotRequired[pulumi.Input[str]]
    """The private key of tls_certificate, PEM (secret)."""
    commands: NotRequired[Sequence[HostCommand]]
    """Commands of your own on the host. They run one after the other, and are undone in reverse order."""


_NO_ALLOW = (
    "server.access.allow: missing, so nobody could reach the server; set the address range of your clients: "
    f"{SET_COMMAND}"
)
_LOCAL_HUB = "PULUMI_VLLM_LOCAL_HUB"
_COMMAND_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def validated_plan(args: ServerArgs) -> Plan:
    """Validate the arguments and return the plan of the server.

    Raises:
        pulumi.RunError: with every error in the arguments, or the reason why the model cannot be served.
    """
    errors = [
        *_unknown_keys("", args, ServerArgs),
        *gateway_certificate.errors(args),
        *_command_errors(args.get("commands") or []),
    ]
    planned: Plan | None = None
    if "server" not in args:
        errors.insert(0, "server: missing; add the block that a stack file has under pulumi-vllm:server")
    else:
        try:
            block = _with_hub_address(args["server"])
            planned = plan(Deployment.parse(block, folders=_model_folders()))
        except PlanError as error:
            errors = [*error.errors, *errors]
    errors += host_argument.errors(args.get("host"), None if planned is None else planned.deployment)
    if planned is not None:
        if planned.deployment.machine.is_own and args.get("ssh_private_key") is not None:
            errors.append("ssh_private_key: is the key of a rented machine; write host.private_key")
        if not planned.deployment.access.allow:
            errors.append(_NO_ALLOW)
        errors += api_keys.errors(args.get("keys"), planned.deployment.access.key_names)
    if errors or planned is None:
        raise pulumi.RunError("\n".join(errors))
    return planned


def _unknown_keys(where: str, given: Mapping[str, Any], kind: type) -> Iterator[str]:
    known = kind.__annotations__
    yield from (f"{where}{key}: unknown key; {suggestion(key, known)}" for key in given if key not in known)


def _command_errors(commands: Any) -> Iterator[str]:
    if api_keys.is_pending(commands):
        yield "commands: is an output; write a list, with outputs as values in it"
        return
    if not isinstance(commands, list | tuple):
        yield "commands: is not a list; write [{'name': …, 'create': …}]"
        return
    names = set()
    for number, command in enumerate(commands):
        where = f"commands[{number}]"
        if not isinstance(command, Mapping):
            yield f"{where}: is not a block of keys; write {{'name': …, 'create': …}}"
            continue
        yield from _unknown_keys(f"{where}.", command, HostCommand)
        yield from _command_value_errors(where, command)
        name = command.get("name")
        if isinstance(name, str) and name:
            if name in names:
                yield f"{where}.name: {name!r} appears twice; each command needs its own name"
            names.add(name)


def _command_value_errors(where: str, command: Mapping[str, Any]) -> Iterator[str]:
    for key in ("name", "create"):
        if command.get(key) in (None, ""):
            yield f"{where}.{key}: missing; add it"
    for key in ("create", "delete", "stdin"):
        value = command.get(key)
        if not (value is None or isinstance(value, str) or api_keys.is_pending(value)):
            yield f"{where}.{key}: is not text; write it as a string"
    name = command.get("name")
    if name not in (None, "") and not (isinstance(name, str) and _COMMAND_NAME.fullmatch(name)):
        yield (
            f"{where}.name: {name!r} is not allowed; write up to 31 lower-case letters, digits and hyphens, without a "
            "hyphen at the start"
        )


def _model_folders() -> tuple[Path, ...]:
    """Where model files are: in the project, which `main` may lead away from, and in the program's folder."""
    root = pulumi.get_root_directory()  # unset where the engine does not say it
    roots = (Path(root), Path()) if root else (Path(),)
    return tuple(folder for one in roots for folder in (one, one / "stacks"))


def _with_hub_address(block: Any) -> Any:
    """On the local cloud, use its hub unless the stack file names one. It sets the variable in its shell.

    HF_ENDPOINT does not count: it belongs to the person's shell, and the same program declares the same in another one.
    """
    endpoint = os.environ.get(_LOCAL_HUB)
    weights = (block.get("weights") or {}) if isinstance(block, Mapping) else None
    if not endpoint or not isinstance(weights, Mapping) or weights.get("endpoint"):
        return block  # parsing reports a block that is not a map
    return {**block, "weights": {**weights, "endpoint": endpoint.rstrip("/")}}
