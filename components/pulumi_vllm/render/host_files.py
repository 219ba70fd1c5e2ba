"""One file on the host, as data: its text, who owns it, and what must happen when it changes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

_SECRET = re.compile(r"@@secret:([a-z0-9_]+)@@")
_VALUE = re.compile(r"@@value:([a-z0-9_]+)@@")


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file to lay down. Secret text appears only as `@@secret:NAME@@`, flowing values as `@@value:NAME@@`.

    `on_change` is "nothing", "daemon-reload", "restart UNIT", "reload UNIT" or "run UNIT"; a change of any
    file under /etc/systemd/system means a daemon-reload before that.
    """

    path: str
    text: str
    mode: str = "0644"
    owner: str = "root:root"
    on_change: str = "nothing"
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.text.encode()).hexdigest())

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets in the text, each once, in order."""
        return tuple(dict.fromkeys(_SECRET.findall(self.text)))

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the flowing public values in the text, each once, in order."""
        return tuple(dict.fromkeys(_VALUE.findall(self.text)))


@dataclass(frozen=True, slots=True)
class Mount:
    """What /models is made of: kind `block` (source = device), `virtiofs` (tag) or `nfs` (host:/export)."""

    kind: str
    source: str
