"""Log in to a host as a user who can become root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged, Unreachable
from pulumi_vllm.host.ssh import Address, Host, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONNECT_S = 10.0


async def log_in(
    host: str, port: int, users: Sequence[str], private_key_pem: str, host_key: str | None = None
) -> Host:
    """Try each user once, and return the connection of the first who can become root.

    Raises:
        HostKeyChanged: the host key is not the pinned one.
        AuthRefused: the host accepts no user's key, or none of them can become root.
        Unreachable: nothing answers.
    """
    failure: HostError | None = None
    for user in users:
        try:
            return await _log_in_as_root(Address(host, port, user), private_key_pem, host_key)
        except HostKeyChanged:
            raise
        except HostError as error:
            if failure is None or isinstance(failure, Unreachable):
                failure = error
            if isinstance(error, Unreachable):
                break  # it is unreachable for every user
    raise failure or HostError(f"{host}: there is no user to log in as")


async def _log_in_as_root(address: Address, private_key_pem: str, host_key: str | None) -> Host:
    """Log in and run `id -u`: images that disable root accept its key, print a hint, and close the connection."""
    host = await connect(address, private_key_pem, host_key, timeout_s=_CONNECT_S)
    try:
        identity = await host.run("id -u", timeout_s=_CONNECT_S, check=False)
    except BaseException:
        await host.close()
        raise
    if identity.code or identity.stdout.strip() != "0":
        await host.close()
        raise AuthRefused(
            f"{address}: logged in, but not as root", f"{identity.stdout}\n{identity.stderr}", identity.code
        )
    return host
