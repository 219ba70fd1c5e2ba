"""One file on the host as data: its text, mode and owner, and what a change of it triggers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from pulumi_vllm.render import package_files

_SECRET = re.compile(r"@@secret:([a-z0-9_]+)@@")
_VALUE = re.compile(r"@@value:([a-z0-9_]+)@@")


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file to write on the host.

    The text holds `@@secret:NAME@@` in place of a secret, and `@@value:NAME@@` in place of a public value that is
    known only when the resources exist.

    `on_change` is "nothing", "daemon-reload", "restart UNIT", "reload UNIT" or "run UNIT". A change of a unit file
    implies a daemon-reload before that.
    """

    path: str
    text: str
    mode: str = "0644"
    owner: str = "root:root"
    on_change: str = "nothing"
    packaged: bool = False
    """Whether the text is a file of this package, the same for every stack, which a state need not hold."""
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.text.encode()).hexdigest())

    @property
    def declared(self) -> str:
        """What the resource `Files` declares: the text, or the digest of a file of this package."""
        return package_files.reference(self.sha256) if self.packaged else self.text

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets in the text, each once, in order of appearance."""
        return tuple(dict.fromkeys(_SECRET.findall(self.text)))

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the public values in the text, each once, in order of appearance."""
        return tuple(dict.fromkeys(_VALUE.findall(self.text)))


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted on /models. The source is a device (`block`), a tag (`virtiofs`) or host:/export (`nfs`)."""

    kind: str
    source: str
