"""The requirements of the local cloud on this computer."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm_local.images import apt_sources, image_cache
from pulumi_vllm_local.machines import cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "mount": "mount",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
FREE_BYTES = 8 * 10**9


@dataclass(frozen=True, slots=True)
class Found:
    """The properties of a computer that the requirements are about."""

    platform: str
    user: int
    programs: Mapping[str, bool]
    overlay: bool
    loops: bool
    group_kill: bool
    free_bytes: int
    os_release: str


def preflight() -> tuple[str, ...]:
    """Return one message for each requirement that this computer does not meet."""
    return unmet(observe())


def observe() -> Found:
    """Read the properties of this computer."""
    filesystems = Path("/proc/filesystems")
    release = Path("/etc/os-release")
    cache = image_cache.folder()
    place = next(path for path in (cache, *cache.parents) if path.is_dir())
    return Found(
        platform=sys.platform,
        user=os.geteuid(),
        programs={name: _program(name) for name in PROGRAMS},
        # The list lacks modules that are not loaded yet; mount loads them.
        overlay=filesystems.is_file()
        and ("overlay" in filesystems.read_text(encoding="ascii") or _module("overlay")),
        loops=Path("/dev/loop-control").exists(),
        group_kill=_group_kill(),
        # Once the large image is built, the rest needs little space.
        free_bytes=shutil.disk_usage(place).free
        + (FREE_BYTES if any(cache.glob("engine-real-*/root")) else 0),
        os_release=release.read_text(encoding="utf-8") if release.is_file() else "",
    )


def unmet(found: Found) -> tuple[str, ...]:
    """Return a message with the remedy for each unmet requirement."""
    if not found.platform.startswith("linux"):
        return (
            f"local cloud: it needs Linux, and this is {found.platform}; run it in a Linux virtual machine",
        )
    messages = []
    if found.user != 0:
        messages.append("local cloud: only root can start its machines; run it with sudo")
    missing = sorted({PROGRAMS[name] for name, installed in found.programs.items() if not installed})
    if missing:
        messages.append(
            f"local cloud: programs are missing; sudo apt-get install -y --no-install-recommends {' '.join(missing)}"
        )
    if not found.overlay:
        messages.append(
            "local cloud: the kernel has no overlay file system; run sudo modprobe overlay, or use another kernel"
        )
    if not found.loops:
        messages.append(
            "local cloud: /dev/loop-control is missing; run sudo modprobe loop, or leave this container"
        )
    if not found.group_kill:
        messages.append(
            "local cloud: no cgroup v2 with cgroup.kill is mounted; use a kernel of version 5.14 or newer"
        )
    if found.free_bytes < FREE_BYTES:
        free = found.free_bytes / 10**9
        messages.append(
            f"local cloud: {free:.1f} GB are free, and the images take 8 GB; free some space, or set XDG_CACHE_HOME"
        )
    try:
        apt_sources.suite(found.os_release)
    except apt_sources.SuiteError as error:
        messages.append(str(error))
    return tuple(messages)


def _program(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is not None


def _module(name: str) -> bool:
    return any(Path("/lib/modules", os.uname().release).rglob(f"{name}.ko*"))


def _group_kill() -> bool:
    """Return whether cgroups have cgroup.kill.

    The root group never has it, so the first group below it decides, or the kernel version if there is none.
    """
    for base in cgroups.hierarchies()[:1]:
        below = [path for path in base.iterdir() if path.is_dir()]
        if below:
            return (below[0] / "cgroup.kill").exists()
        major, minor = (int(part) for part in os.uname().release.split(".")[:2])
        return (major, minor) >= (5, 14) and (
            (base / "cgroup.controllers").exists() or base.name == "unified"
        )
    return False
