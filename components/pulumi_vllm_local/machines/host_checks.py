"""What the local cloud needs of the computer it runs on."""

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
    """What there is; read from the computer, or made up by a test."""

    platform: str
    user: int
    programs: Mapping[str, bool]
    overlay: bool
    loops: bool
    group_kill: bool
    free_bytes: int
    os_release: str


def preflight() -> tuple[str, ...]:
    """Return what is missing, one sentence each."""
    return complaints(look())


def look() -> Found:
    """Look at this computer."""
    filesystems = Path("/proc/filesystems")
    release = Path("/etc/os-release")
    cache = image_cache.folder()
    place = next(path for path in (cache, *cache.parents) if path.is_dir())
    return Found(
        platform=sys.platform,
        user=os.geteuid(),
        programs={name: _program(name) for name in PROGRAMS},
        # A module that is not loaded yet is not listed; mount loads it.
        overlay=filesystems.is_file()
        and ("overlay" in filesystems.read_text(encoding="ascii") or _module("overlay")),
        loops=Path("/dev/loop-control").exists(),
        group_kill=_group_kill(),
        # With the big image built, what is left to write is small.
        free_bytes=shutil.disk_usage(place).free
        + (FREE_BYTES if any(cache.glob("engine-real-*/root")) else 0),
        os_release=release.read_text(encoding="utf-8") if release.is_file() else "",
    )


def complaints(found: Found) -> tuple[str, ...]:
    """Say what is missing and what to do about it."""
    if not found.platform.startswith("linux"):
        return (
            f"local cloud: it needs Linux and this is {found.platform}; run it in a Linux virtual machine",
        )
    said = []
    if found.user != 0:
        said.append("local cloud: it starts machines, which only root can; run it with sudo")
    missing = sorted({PROGRAMS[name] for name, there in found.programs.items() if not there})
    if missing:
        said.append(
            f"local cloud: programs are missing; sudo apt-get install -y --no-install-recommends {' '.join(missing)}"
        )
    if not found.overlay:
        said.append(
            "local cloud: the kernel has no overlay file system; sudo modprobe overlay, or use another kernel"
        )
    if not found.loops:
        said.append(
            "local cloud: /dev/loop-control is missing; sudo modprobe loop, or run outside of this container"
        )
    if not found.group_kill:
        said.append(
            "local cloud: no cgroup v2 with cgroup.kill is mounted; it needs a kernel of 5.14 or newer"
        )
    if found.free_bytes < FREE_BYTES:
        free = found.free_bytes / 10**9
        said.append(
            f"local cloud: {free:.1f} GB are free and the images take 8 GB; free some, or set XDG_CACHE_HOME"
        )
    try:
        apt_sources.suite(found.os_release)
    except apt_sources.SuiteError as error:
        said.append(str(error))
    return tuple(said)


def _program(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is not None


def _module(name: str) -> bool:
    return any(Path("/lib/modules", os.uname().release).rglob(f"{name}.ko*"))


def _group_kill() -> bool:
    """A root group has no cgroup.kill, so look into the first one below it; with none there, trust the version."""
    for base in cgroups.hierarchies()[:1]:
        below = [path for path in base.iterdir() if path.is_dir()]
        if below:
            return (below[0] / "cgroup.kill").exists()
        major, minor = (int(part) for part in os.uname().release.split(".")[:2])
        return (major, minor) >= (5, 14) and (
            (base / "cgroup.controllers").exists() or base.name == "unified"
        )
    return False
