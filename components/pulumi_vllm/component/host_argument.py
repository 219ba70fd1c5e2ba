"""The arguments of a Server about a machine that somebody else made, and its resource."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pulumi

from pulumi_vllm.component import generated as resources
from pulumi_vllm.component.api_keys import is_pending
from pulumi_vllm.plan import host_block
from pulumi_vllm.plan.config import Deployment


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


class _OfConfig(dict[str, Any]):
    """A host of the stack's configuration, whose errors name the key there. The private key may have a problem."""

    key_problem: str | None = None


def errors(host: Any, deployment: Deployment | None) -> Iterator[str]:
    """Yield every error in the argument `host`, as far as it is known."""
    if host is None:
        if deployment is not None and deployment.machine.is_own:
            yield (
                "host: missing, and server.machine.cloud is none; name the machine: "
                '{"address": …, "user": …, "private_key": …}'
            )
        return
    where = host_block.IN_STACK_FILE if isinstance(host, _OfConfig) else "host"
    if deployment is not None and not deployment.machine.is_own:
        yield f"{where}: {host_block.NO_EFFECT}"
    if is_pending(host) or not isinstance(host, Mapping):
        yield 'host: is not a block of keys; write {"address": …, "private_key": …}, with outputs as values in it'
        return
    key_problem = host.key_problem if isinstance(host, _OfConfig) else None
    if key_problem:
        yield key_problem
    required = ("address",) if key_problem else ("address", "private_key")
    yield from host_block.errors(host, where, is_pending, required=required)


def from_config(config: pulumi.Config, found: Mapping[str, Any] | None) -> Host | None:
    """The key `host` of the stack's configuration as an argument. The private key is a secret, or in a file.

    What is wrong with the key is reported by `errors`, with every other error.
    """
    if found is None:
        return None
    host = _OfConfig(found)
    file = host.pop(host_block.KEY_FILE, None)
    key = config.get_secret("hostPrivateKey")
    if host.pop("private_key", None):
        host.key_problem = host_block.KEY_IN_CLEAR
    elif key is not None:
        host["private_key"] = key
    elif file is None:
        host.key_problem = (
            f"{host_block.IN_STACK_FILE}: has no private key; add {host_block.KEY_FILE}, the path of its file, or run "
            f"`{host_block.SET_KEY}`"
        )
    else:
        reason: str | None = None
        try:
            host["private_key"] = Path(str(file)).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
        else:
            reason = None if host["private_key"].strip() else "it is empty"
        if reason is not None:
            host.key_problem = (
                f"{host_block.IN_STACK_FILE}.{host_block.KEY_FILE}: {file} can't be read ({reason}); name the file of "
                "a private SSH key"
            )
    return cast("Host", host)


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
