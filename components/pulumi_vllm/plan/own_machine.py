"""A machine that somebody else made (`machine.cloud: none`): it is used, never rented, and never ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pulumi_vllm.plan.host_paths import MODELS

CLOUD: Final = "none"
"""`machine.cloud` of such a machine."""

ID_PREFIX: Final = "own-"
"""How the id of such a machine begins in a state. No cloud knows it."""

_RENTED = "applies to rented machines only, and machine.cloud is none"
_REFUSALS: Final = {
    "expires": "would power off a machine that this stack did not make (machine.cloud: none); leave it out",
    "idle_stop": "would power off a machine that this stack did not make (machine.cloud: none); leave it out",
    "schedule": "saves nothing, since `pulumi destroy` ends no machine with machine.cloud: none; leave it out",
    "ssh_allow": (
        "SSH stays as it is on a machine with cloud: none; leave it out, and restrict SSH in the machine's own firewall"
    ),
    "max_usd_per_hour": f"{_RENTED}; leave it out, and write what an hour costs as usd_per_hour",
}
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_NOT_BELOW: Final = ("/boot", "/dev", "/etc", MODELS, "/proc", "/run", "/sys", "/tmp", "/usr")  # noqa: S108
"""Where no model store can be: file systems of the kernel, what a reboot clears, programs, and our mount point."""
_EXAMPLES = "{path: /data/llm} or {device: /dev/nvme1n1}"


@dataclass(frozen=True, slots=True)
class Store:
    """Where such a machine keeps weights and caches: a directory, or a device. One of them is set."""

    path: str | None = None
    device: str | None = None

    @property
    def place(self) -> str:
        """The directory or the device."""
        return self.path or self.device or ""


def is_declared_in(block: object) -> bool:
    """Whether a block `server` as a person wrote it, which may have errors, is for such a machine."""
    machine = block.get("machine") if isinstance(block, Mapping) else None
    return isinstance(machine, Mapping) and machine.get("cloud") == CLOUD


def refusal(key: str) -> str:
    """Why a key has no place beside `machine.cloud: none`, and what to do."""
    return _REFUSALS.get(key, f"{_RENTED}; leave it out")


def store(value: Mapping[str, object]) -> Store:
    """Parse `storage` of such a machine.

    Raises:
        ValueError: it is not one directory or one device.
    """
    key, place = next(iter(value.items()), ("", None))
    if len(value) != 1 or key not in {"path", "device"}:
        written = f"has the keys {', '.join(map(str, value))}" if value else "is an empty block"
        msg = f"{written}; write one of {_EXAMPLES}"
        raise ValueError(msg)
    parts = str(place).split("/")
    if not isinstance(place, str) or not _PATH.fullmatch(place) or not {".", ".."}.isdisjoint(parts):
        msg = (
            f"{key} {place!r} is not a full path of letters, digits and ._- without / at its end; "
            f"write one of {_EXAMPLES}"
        )
        raise ValueError(msg)
    if key == "device":
        if not place.startswith("/dev/"):
            msg = f"device {place!r} is not below /dev; write one such as /dev/nvme1n1, or {{path: {place}}}"
            raise ValueError(msg)
        return Store(device=place)
    if below := next((one for one in _NOT_BELOW if f"{place}/".startswith(f"{one}/")), None):
        msg = f"path {place!r} is in {below}, where no model store can be; write one such as /data/llm"
        raise ValueError(msg)
    return Store(path=place)
