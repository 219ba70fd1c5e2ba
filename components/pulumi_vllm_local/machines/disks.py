"""The disks of volumes: block devices and shares, each in a sparse image file.

A block volume is created without a file system, as in the real clouds. A share has a file system of its own, so that
it has a size of its own. `Machines` attaches and detaches disks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pulumi_vllm_local import json_files
from pulumi_vllm_local.machines import processes

Kind = Literal["block", "share"]
LETTERS = "bcdefghijklmnop"
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class DiskError(Exception):
    """A disk failed; the message says which volume, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of a volume, and the machine it is attached to."""

    id: str
    size_gb: int
    kind: Kind
    tag: str
    machine: str | None = None
    device: str | None = None


class Disks:
    """All disks of one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._top = state_dir / "volumes"
        self._shares = state_dir / "shares"
        self._lock = threading.RLock()

    def create(self, volume_id: str, size_gb: int, kind: Kind, tag: str | None = None) -> Disk:
        """Create a disk unless it exists."""
        with self._lock:
            found = self.get(volume_id)
            if found:
                return found
            for text in (volume_id, tag or volume_id):
                if not SAFE.fullmatch(text):
                    raise DiskError(
                        f"volume {text!r}: use letters, digits, dot, dash and underscore, at most 64"
                    )
            image = self.image(volume_id)
            image.parent.mkdir(parents=True, exist_ok=True)
            with image.open("wb") as handle:
                handle.truncate(_bytes(size_gb))
            if kind == "share":
                # With lazy tables, a file system of 300 GB is created at once and takes 10 MB.
                processes.run(
                    "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", image
                )
            disk = Disk(volume_id, size_gb, kind, tag or volume_id)
            self._write(disk)
            return disk

    def get(self, volume_id: str) -> Disk | None:
        """Return the disk of a volume, or None."""
        found = json_files.read(self._top / volume_id / "record.json")
        return Disk(**found) if found else None

    def all(self) -> tuple[Disk, ...]:
        """Return all disks."""
        folders = sorted(path.name for path in self._top.iterdir()) if self._top.is_dir() else []
        return tuple(disk for disk in map(self.get, folders) if disk)

    def of(self, machine_id: str) -> tuple[Disk, ...]:
        """Return the disks that are attached to a machine."""
        return tuple(disk for disk in self.all() if disk.machine == machine_id)

    def delete(self, volume_id: str) -> None:
        """Delete the disk of a volume with its data."""
        with self._lock:
            disk = self.get(volume_id)
            if disk and disk.machine:
                raise DiskError(
                    f"volume {volume_id}: it is attached to machine {disk.machine}; detach it first"
                )
            if disk:
                self.release(disk)
            shutil.rmtree(self._top / volume_id, ignore_errors=True)

    def grow(self, volume_id: str, size_gb: int) -> bool:
        """Grow a disk and keep its data; return False if a share grows only at the next start of its machine.

        The file system of a block disk is left alone. Growing a mounted one needs a capability that root may not have.
        """
        with self._lock:
            disk = self.get(volume_id)
            if disk is None:
                raise DiskError(f"volume {volume_id}: there is no volume with this id; create it first")
            with self.image(volume_id).open("r+b") as handle:
                handle.truncate(_bytes(size_gb))
            for loop in self._loops(volume_id):
                processes.run("losetup", "--set-capacity", loop)
            self._write(replace(disk, size_gb=size_gb))
            return disk.kind == "block" or self._grow_file_system(disk)

    def _grow_file_system(self, disk: Disk) -> bool:
        """Grow the file system of a share to the size of its image; return whether that worked."""
        point = self._shares / disk.id
        if not point.is_mount():
            processes.run("e2fsck", "-f", "-p", self.image(disk.id))
            processes.run("resize2fs", self.image(disk.id))
            return True
        try:
            processes.run("resize2fs", self.loop(disk))
        except processes.CommandError:
            return False
        return True

    def image(self, volume_id: str) -> Path:
        """Return the image file."""
        return self._top / volume_id / "disk.img"

    def claim(self, volume_id: str, machine_id: str) -> Disk:
        """Record that a machine has the volume, before it is attached."""
        with self._lock:
            disk = self.get(volume_id)
            if disk is None:
                raise DiskError(f"volume {volume_id}: there is no volume with this id; create it first")
            if disk.machine == machine_id:
                return disk
            if disk.machine:
                raise DiskError(
                    f"volume {volume_id}: it is attached to machine {disk.machine}; detach it there first"
                )
            device = None
            if disk.kind == "block":
                taken = {other.device for other in self.of(machine_id)}
                free = [f"/dev/vd{letter}" for letter in LETTERS if f"/dev/vd{letter}" not in taken]
                if not free:
                    raise DiskError(
                        f"machine {machine_id}: it already has {len(LETTERS)} block volumes; detach one first"
                    )
                device = free[0]
            disk = replace(disk, machine=machine_id, device=device)
            self._write(disk)
            return disk

    def disclaim(self, volume_id: str) -> None:
        """Record that no machine has the volume, and release its device."""
        with self._lock:
            disk = self.get(volume_id)
            if disk:
                self._write(replace(disk, machine=None, device=None))
                self.release(disk)

    def binds(self, machine_id: str) -> tuple[str, ...]:
        """Prepare the disks of a machine for its boot; return the options for nspawn."""
        options = []
        for disk in self.of(machine_id):
            if disk.kind == "block":
                options.append(f"--bind={self.loop(disk)}:{disk.device}")
            else:
                if self._is_outgrown(disk):
                    self.release(disk)
                    self._grow_file_system(disk)
                options.append(f"--bind={self._mounted(disk)}:/run/lc-shares/{disk.tag}")
        return tuple(options)

    def serials(self, machine_id: str) -> dict[str, str]:
        """Return the serial of each device: the first 20 characters of the volume id, the limit of virtio."""
        return {
            str(disk.device).removeprefix("/dev/"): disk.id[:20]
            for disk in self.of(machine_id)
            if disk.device
        }

    def loop(self, disk: Disk) -> str:
        """Return the loop device of the image, and create it if there is none."""
        with self._lock:
            image = self.image(disk.id)
            found = self._loops(disk.id)
            return found[0] if found else processes.run("losetup", "--find", "--show", image).strip()

    def device_number(self, disk: Disk) -> str | None:
        """Return MAJOR:MINOR of the loop device, or None."""
        with self._lock:
            loops = self._loops(disk.id)
        if not loops:
            return None
        number = Path(loops[0]).stat().st_rdev
        return f"{os.major(number)}:{os.minor(number)}"

    def attach_hot(self, disk: Disk, leader: int) -> None:
        """Create the block device in a running guest."""
        loop = self.loop(disk)
        mode = Path(loop).stat()
        if not stat.S_ISBLK(mode.st_mode):
            raise DiskError(
                f"volume {disk.id}: {loop} is not a block device; run `pulumi-vllm local down` and start again"
            )
        major, minor = os.major(mode.st_rdev), os.minor(mode.st_rdev)
        # `mknod -m` needs a capability that root may not have; the umask sets the same permissions.
        script = (
            f"umask 0117; [ -b {disk.device} ] || mknod {disk.device} b {major} {minor}; chgrp disk {disk.device};"
            f" mkdir -p /var/lib/lc-disks; echo {disk.id[:20]} > /var/lib/lc-disks/{str(disk.device)[5:]};"
            " /usr/local/sbin/lc-disk-links"
        )
        _inside(leader, script)

    def detach_hot(self, disk: Disk, leader: int, *, force: bool) -> None:
        """Remove the disk from a running guest."""
        mounted = self.mount_points(disk, leader)
        if mounted and not force:
            raise DiskError(
                f"volume {disk.id}: machine {disk.machine} has it mounted at {mounted[0]}; unmount it first"
            )
        for point in reversed(mounted):
            _inside(leader, f"umount -l '{point}'")
        if disk.kind == "block":
            name = str(disk.device)
            # A device that was attached at boot is a bind mount over an empty file.
            _inside(
                leader,
                f"umount {name} 2>/dev/null; rm -f {name} /var/lib/lc-disks/{name[5:]}; lc-disk-links; true",
            )

    def mount_points(self, disk: Disk, leader: int) -> list[str]:
        """Return the mount points of the disk in a guest."""
        number = self.device_number(disk)
        if number is None:
            return []
        lines = Path(f"/proc/{leader}/mountinfo").read_text(encoding="utf-8").splitlines()
        fields = [line.split() for line in lines]
        return [
            field[4] for field in fields if field[2] == number and not field[4].startswith("/run/lc-shares/")
        ]

    def release(self, disk: Disk) -> None:
        """Unmount a share on this computer and remove the loop device."""
        with self._lock:
            point = self._shares / disk.id
            if point.is_mount():
                processes.run("umount", point, check=False)
                if point.is_mount():
                    processes.run("umount", "-l", point)
            if point.is_dir():
                point.rmdir()
            for loop in self._loops(disk.id):
                processes.run("losetup", "-d", loop, check=False)

    def _mounted(self, disk: Disk) -> Path:
        with self._lock:
            point = self._shares / disk.id
            if not point.is_mount():
                point.mkdir(parents=True, exist_ok=True)
                processes.run("mount", "-t", "ext4", self.loop(disk), point)
            return point

    def _is_outgrown(self, disk: Disk) -> bool:
        """Return whether the image of a share is larger than its file system by more than 0.5 GB."""
        lines = processes.run("dumpe2fs", "-h", self.image(disk.id)).splitlines()
        header = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(header["Block count"]) * int(header["Block size"]) < _bytes(disk.size_gb) - 10**9 // 2

    def _loops(self, volume_id: str) -> list[str]:
        image = self.image(volume_id)
        if not image.exists():
            return []
        listed = processes.run(
            "losetup", "--json", "--list", "--output", "NAME,BACK-FILE", "--associated", image
        )
        return [entry["name"] for entry in json.loads(listed or '{"loopdevices":[]}')["loopdevices"]]

    def _write(self, disk: Disk) -> None:
        json_files.write(self._top / disk.id / "record.json", asdict(disk))


def _bytes(size_gb: int) -> int:
    """Return the size of an image in bytes, in whole blocks."""
    return size_gb * 10**9 // 4096 * 4096


def _inside(leader: int, script: str) -> None:
    # Enter the process namespace too: umount reads /proc/self, and the guest's /proc does not have our process.
    try:
        processes.run(
            "nsenter", "-t", str(leader), "-m", "-p", "sh", "-c", f"PATH=$PATH:/usr/local/sbin; {script}"
        )
    except processes.CommandError as error:
        raise DiskError(f"volume: the change failed inside the machine: {error}") from error
