"""The block `host` for a machine that somebody else made: `pulumi-vllm:host` of a stack file, or an argument."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.plan.suggestions import suggestion
from pulumi_vllm.plan.yaml_text import in_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IN_STACK_FILE: Final = "pulumi-vllm:host"
KEY_FILE: Final = "private_key_file"
"""In a stack file: the path of the file with the private key."""
KEYS: Final = ("address", "private_key", "port", "user", "host_key", "triggers")
NO_EFFECT: Final = (
    "has no effect, because server.machine.cloud rents the machine; leave it out, or set cloud: none"
)
SET_KEY: Final = "pulumi config set --secret pulumi-vllm:hostPrivateKey < key-file"
SET_ADDRESS: Final = "pulumi config set --path pulumi-vllm:host.address YOUR.MACHINE"
KEY_IN_CLEAR: Final = (
    f"{IN_STACK_FILE}.private_key: is in clear in the stack file; remove it, and run `{SET_KEY}`"
)

_HIGHEST_PORT = 65_535
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def errors(
    host: Mapping[str, Any],
    where: str,
    is_pending: Callable[[object], bool],
    known: tuple[str, ...] = KEYS,
    required: tuple[str, ...] = ("address", "private_key"),
) -> Iterator[str]:
    """Yield every error of the block at `where`. A value that `is_pending` is not known yet."""
    yield from (
        f"{where}.{key}: unknown key; {suggestion(str(key), known)}" for key in host if key not in known
    )
    yield from (
        f"{where}.{key}: missing; add it"
        for key in required
        if not is_pending(host.get(key)) and not host.get(key)
    )
    for key in ("address", "private_key", KEY_FILE, "user", "host_key"):
        value = host.get(key)
        if not (value is None or isinstance(value, str) or is_pending(value)):
            yield f"{where}.{key}: is not text; write it as a string"
    address, user, port, triggers = (host.get(key) for key in ("address", "user", "port", "triggers"))
    if isinstance(address, str) and address and not _is_address(address):
        yield (
            f"{where}.address: {address[:80]!r} is not an address; write an IP address or a DNS name, and nothing else"
        )
    if isinstance(user, str) and not _USER.fullmatch(user):
        yield (
            f"{where}.user: {user[:80]!r} is not a login name; write up to 64 letters, digits and _.@-, such as ubuntu"
        )
    is_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port <= _HIGHEST_PORT
    if not (port is None or is_pending(port) or is_port):
        yield f"{where}.port: {in_yaml(port)} is not a port; write a number from 1 to {_HIGHEST_PORT}"
    if triggers is not None and (is_pending(triggers) or not isinstance(triggers, list | tuple)):
        yield f"{where}.triggers: is not a list; write [machine.id]"


def errors_in_file(host: object) -> Iterator[str]:
    """Yield every error of `pulumi-vllm:host` that the stack file alone shows. The key's file is not read."""
    if host is None:
        return
    if not isinstance(host, Mapping):
        yield f"{IN_STACK_FILE}: is not a block of keys; docs/reference/stack-file.md lists them"
        return
    if host.get("private_key"):
        yield KEY_IN_CLEAR
    yield from errors(host, IN_STACK_FILE, _is_encrypted, (*KEYS, KEY_FILE), ("address",))


def _is_encrypted(value: object) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"secure"}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True
