"""What a Server takes, and every mistake in it: those of the block, of the keys and of the commands, all at once."""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import pulumi

from pulumi_vllm.component import gateway_certificate
from pulumi_vllm.plan import Plan, PlanError, plan
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.suggestions import suggestion


class HostCommand(TypedDict):
    """Commands of your own on the host, run with pulumi-command as the machine's login user, who may use sudo."""

    name: str
    """Part of the resource's name: small letters, digits, hyphens."""
    create: pulumi.Input[str]
    """Run once the server is ready; again when this command changes, and on every new machine."""
    delete: NotRequired[pulumi.Input[str]]
    """Run before the machine goes, or before the command is taken out. It must cope with being run twice."""
    stdin: NotRequired[pulumi.Input[str]]
    """What `create` and `delete` read from standard input: the way for a secret, which is no part of a command."""


class ServerArgs(TypedDict):
    """What a Server needs."""

    server: Mapping[str, Any]
    """The block that a stack file holds under `pulumi-vllm:server`: model, machine, context, access."""
    keys: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    """API keys by name (secret). A name in server.access.keys without a value here gets a random key."""
    hf_token: NotRequired[pulumi.Input[str]]
    """Token for the model hub (secret), where the repository is gated."""
    ssh_private_key: NotRequired[pulumi.Input[str]]
    """Private SSH key to use (secret); left out, one is made and kept in state."""
    tls_certificate: NotRequired[pulumi.Input[str]]
    """A certificate of your own for server.access.hostname, PEM, with its chain; left out, our own CA issues one."""
    tls_private_key: NotRequired[pulumi.Input[str]]
    """Its key, PEM (secret)."""
    commands: NotRequired[Sequence[HostCommand]]
    """Commands of your own on the host, run one after the other in this order, and undone in the other one."""


_KEY = re.compile(
    r"[!-~]+"
)  # what is visible in ASCII: the part of RFC 9110's field-vchar that clients agree on
_COMMAND_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def decide(args: ServerArgs) -> Plan:
    """The plan of a server.

    Raises:
        pulumi.RunError: the arguments have mistakes (all are listed), the model does not fit, or a flag can't work.
    """
    found = [
        *_unknown("", args, ServerArgs),
        *gateway_certificate.mistakes(args),
        *_command_mistakes(args.get("commands") or []),
    ]
    decided: Plan | None = None
    if "server" not in args:
        found.insert(0, "server: missing; add the block that a stack file holds under pulumi-vllm:server")
    else:
        try:
            decided = plan(Deployment.parse(_with_endpoint(args["server"])))
        except PlanError as error:
            found = [*error.errors, *found]
    if decided is not None:
        found += key_mistakes(args.get("keys"), decided.deployment.access.keys)
    if found or decided is None:
        raise pulumi.RunError("\n".join(found))
    return decided


def key_mistakes(given: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for each name that the block does not have, and each value that no client can send; never a value.

    What is not known yet is not looked at.
    """
    if given is None or _waits(given):
        return ()
    if not isinstance(given, Mapping):
        return ("keys: is not a map of names and values; write {'NAME': VALUE}, or leave it out",)
    found = [
        f"keys.{name}: no such name in server.access.keys; {suggestion(name, names)}"
        for name in given
        if name not in names
    ]
    for name, value in given.items():
        if value == "":
            found.append(f"keys.{name}: is empty; leave it out, and it gets a random key")
        elif isinstance(value, str) and not _KEY.fullmatch(value):
            found.append(
                f"keys.{name}: holds a space, a line end or no ASCII; a header can't carry such a key"
            )
        elif not (value is None or isinstance(value, str) or _waits(value)):
            found.append(f"keys.{name}: is not text; set it as a string")
    return tuple(found)


def _waits(value: Any) -> bool:
    """Whether it is a value that comes later."""
    return isinstance(value, pulumi.Output) or inspect.isawaitable(value)


def _unknown(where: str, given: Mapping[str, Any], kind: type) -> Iterator[str]:
    known = kind.__annotations__
    yield from (f"{where}{key}: unknown key; {suggestion(key, known)}" for key in given if key not in known)


def _command_mistakes(commands: Any) -> Iterator[str]:
    if _waits(commands):
        yield "commands: is an output; give a list, and outputs as the values in it"
        return
    if not isinstance(commands, list | tuple):
        yield "commands: is not a list; write [{'name': …, 'create': …}]"
        return
    seen = set()
    for number, command in enumerate(commands):
        where = f"commands[{number}]"
        if not isinstance(command, Mapping):
            yield f"{where}: is not a block of keys; write {{'name': …, 'create': …}}"
            continue
        yield from _unknown(f"{where}.", command, HostCommand)
        yield from _form_mistakes(where, command)
        name = command.get("name")
        if isinstance(name, str) and name:
            if name in seen:
                yield f"{where}.name: {name!r} appears twice; each command needs its own name"
            seen.add(name)


def _form_mistakes(where: str, command: Mapping[str, Any]) -> Iterator[str]:
    for key in ("name", "create"):
        if command.get(key) in (None, ""):
            yield f"{where}.{key}: missing; add it"
    for key in ("create", "delete", "stdin"):
        value = command.get(key)
        if not (value is None or isinstance(value, str) or _waits(value)):
            yield f"{where}.{key}: is not text; write it as a string"
    name = command.get("name")
    if name not in (None, "") and not (isinstance(name, str) and _COMMAND_NAME.fullmatch(name)):
        yield f"{where}.name: {name!r} is not allowed; it must match {_COMMAND_NAME.pattern}"


def _with_endpoint(block: Any) -> Any:
    """HF_ENDPOINT is what every client of the hub obeys; a hub in the stack file wins."""
    endpoint = os.environ.get("HF_ENDPOINT")
    weights = (block.get("weights") or {}) if isinstance(block, Mapping) else None
    if not endpoint or not isinstance(weights, Mapping) or weights.get("endpoint"):
        return block  # also where it is no block at all: parsing says so
    return {**block, "weights": {**weights, "endpoint": endpoint.rstrip("/")}}
