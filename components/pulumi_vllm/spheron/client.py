"""Client of the rental API. Its methods block and never wait long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pulumi_vllm.spheron.account import Account
from pulumi_vllm.spheron.api_address import DEFAULT_URL, FROM_ENVIRONMENT, Remedies
from pulumi_vllm.spheron.instance_creation import LOOKUP_S
from pulumi_vllm.spheron.instances import Instances
from pulumi_vllm.spheron.known_names import KnownNames
from pulumi_vllm.spheron.offer_listing import Offers
from pulumi_vllm.spheron.ssh_keys import SshKeys
from pulumi_vllm.spheron.transport import Transport
from pulumi_vllm.spheron.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Spheron:
    """One team at the rental API. Safe to use from several threads; never shows its key."""

    def __init__(
        self,
        api_key: str,
        *,
        url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        timeouts_s: Mapping[str, float] | None = None,
        lookup_s: float = LOOKUP_S,
        remedies: Remedies = FROM_ENVIRONMENT,
    ) -> None:
        """Make the client of one API key.

        Args:
            api_key: the key.
            url: the API's base URL; None or "" stands for the public one.
            clock: seconds since some moment.
            sleep: waits this many seconds.
            timeouts_s: time limits per HTTP method, in place of the defaults.
            lookup_s: how long an instance is looked for after a lost answer to its creation.
            remedies: ends of the messages about a key or a URL that does not work.
        """
        self.transport = Transport(
            url or DEFAULT_URL,
            api_key,
            clock=clock,
            sleep=sleep,
            timeouts_s=timeouts_s,
            remedies=remedies,
        )
        names = KnownNames()
        self.account = Account(self.transport)
        self.offers = Offers(self.transport)
        self.ssh_keys = SshKeys(self.transport, self.account)
        self.volumes = Volumes(self.transport, self.account, names)
        self.instances = Instances(self.transport, self.account, names, lookup_s=lookup_s)

    def __repr__(self) -> str:
        return f"Spheron({self.transport.url!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        self.transport.close()
