"""The arguments of a Server about a machine that somebody else made, and its resource."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pulumi

from pulumi_vllm.component import generated as resources
from pulumi_vllm.component.api_keys import is_pending
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.suggestions import suggestion

_HIGHEST_PORT = 65_535
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_KEY_FILE = "private_key_file"
_SET_KEY = "pulumi config set --secret pulumi-vllm:hostPrivateKey < key-file"


class Host(TypedDict):
    """A machine that somebody else made, for `machine.cloud: none`. Every value may be an output of any resource."""

    address: pulumi.Input[str]
    """IP address or DNS name, at which clients reach the gateway too."""
    private_key: pulumi.Input[str]
    """Private SSH key (secret), PEM or OpenSSH, without a passphrase."""
    port: NotRequired[pulumi.Input[int]]
    """SSH port; 22 by default."""
    user: NotRequired[pulumi.Input[str]]
    """Login user: root (the default), or one who may use sudo without a password."""
    host_key: NotRequired[pulumi.Input[str]]
    """SSH host key, as in `ssh-ed25519 AAAA…`. Without it, the key of the first contact is pinned."""
    triggers: NotRequired[Sequence[pulumi.Input[str]]]
    """What identifies the machine, such as the id of the resource that made it. Other values mean another machine."""


def errors(host: Any, deployment: Deployment | None) -> Iterator[str]:
    """Yield every error in the argument `host`, as far as it is known."""
    if host is None:
        if deployment is not None and deployment.machine.is_own:
            yield (
                "host: missing, and server.machine.cloud is none; name the machine: "
                '{"address": …, "user": …, "private_key": …}'
            )
        return
    if deployment is not None and not deployment.machine.is_own:
        yield "host: has no effect, because server.machine.cloud rents the machine; leave it out, or set cloud: none"
    if is_pending(host) or not isinstance(host, Mapping):
        yield 'host: is not a block of keys; write {"address": …, "private_key": …}, with outputs as values in it'
        return
    known = Host.__annotations__
    yield from (f"host.{key}: unknown key; {suggestion(key, known)}" for key in host if key not in known)
    yield from (
        f"host.{key}: missing; add it"
        for key in ("address", "private_key")
        if not is_pending(host.get(key)) and not host.get(key)
    )
    for key in ("address", "private_key", "user", "host_key"):
        value = host.get(key)
        if not (value is None or isinstance(value, str) or is_pending(value)):
            yield f"host.{key}: is not text; write it as a string"
    address = host.get("address")
    if isinstance(address, str) and address and not _is_address(address):
        yield f"host.address: {address[:80]!r} is not an address; write an IP address or a DNS name, and nothing else"
    port = host.get("port")
    is_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port <= _HIGHEST_PORT
    if not (port is None or is_pending(port) or is_port):
        yield f"host.port: {port!r} is not a port; write a number from 1 to {_HIGHEST_PORT}"
    triggers = host.get("triggers")
    if triggers is not None and (is_pending(triggers) or not isinstance(triggers, list | tuple)):
        yield "host.triggers: is not a list; write [machine.id]"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True


def from_config(config: pulumi.Config, found: Mapping[str, Any] | None) -> Host | None:
    """The key `host` of the stack's configuration as an argument. The private key is a secret, or in a file.

    Raises:
        pulumi.RunError: the file can't be read, or there is no private key.
    """
    if found is None:
        return None
    host = dict(found)
    file = host.pop(_KEY_FILE, None)
    if host.get("private_key"):
        raise pulumi.RunError(
            f"pulumi-vllm:host.private_key: is in clear in the stack file; remove it, and run `{_SET_KEY}`"
        )
    key = config.get_secret("hostPrivateKey")
    if file is not None and key is None:
        try:
            return cast("Host", {**host, "private_key": Path(str(file)).expanduser().read_text()})
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise pulumi.RunError(
                f"pulumi-vllm:host.{_KEY_FILE}: {file} can't be read ({reason}); name the file of a private SSH key"
            ) from None
    if key is None:
        raise pulumi.RunError(
            f"pulumi-vllm:host: has no private key; add {_KEY_FILE}, the path of its file, or run `{_SET_KEY}`"
        )
    return cast("Host", {**host, "private_key": key})


def declare(name: str, host: Host, deployment: Deployment, opts: pulumi.ResourceOptions) -> resources.Machine:
    """Declare the resource of the machine."""
    triggers = host.get("triggers")
    return resources.Machine(
        name,
        address=host["address"],
        private_key=host["private_key"],
        port=host.get("port"),
        user=host.get("user"),
        host_key=host.get("host_key"),
        triggers=None if triggers is None else list(triggers),
        store_path=deployment.store.path,
        store_device=deployment.store.device,
        drain_timeout_s=deployment.drain_timeout_s,
        unreachable=deployment.unreachable,
        opts=opts,
    )
