"""A volume on its host: recognize it, format a blank device, mount it, and measure its file system."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.host.boot_identity import PRINT_BOOT_IDENTITY
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

_BLANK = "-blank-"
_BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """What is to be mounted: a block device by its label, or a share by its tag."""

    volume_name: str
    kind: str
    """block, virtiofs or nfs."""
    tag: str = ""
    """Tag of a share."""

    @property
    def is_block(self) -> bool:
        """Whether the volume is a device with a file system of ours."""
        return self.kind == "block"

    @property
    def label(self) -> str:
        """Label of our file system. ext4 allows 16 characters; the end of a volume's name is its hash."""
        return f"pv-{self.volume_name[-10:]}"

    @property
    def source(self) -> str:
        """What the mount unit mounts."""
        return f"LABEL={self.label}" if self.is_block else self.tag


@dataclass(frozen=True, slots=True)
class HostVolumes:
    """The volumes of a host at one moment."""

    boot: str
    """Identity of the host's boot."""
    labels: Mapping[str, str]
    """Label by block device, without the host's first disks."""
    present: bool
    """Whether the volume is there, and not only a blank device that may become it."""

    @property
    def has_blank_device(self) -> bool:
        """Whether a device has no content."""
        return _BLANK in self.labels.values()

    def added_since(self, before: "HostVolumes") -> list[str]:
        """Return the devices that an attachment brought. An older blank one may belong to the host."""
        return [device for device in self.labels if device not in before.labels]

    def all_blank(self, devices: list[str]) -> bool:
        """Whether none of these devices has any content."""
        return all(self.labels[device] == _BLANK for device in devices)


async def inspect(host: "Host", mount: VolumeMount) -> HostVolumes:
    """Return the volumes of a host."""
    result = await host.run(_INSPECT, timeout_s=30)
    boot, labels, mounted = "", {}, False
    for word, *values in (line.split() for line in result.stdout.splitlines()):
        if word == "boot":
            boot = values[0]
        elif word == "device":
            labels[values[0]] = values[1] if len(values) > 1 else ""
        elif word == "mounted":
            mounted = True
    if mount.is_block:
        return HostVolumes(boot, labels, present=mount.label in labels.values())
    return HostVolumes(boot, labels, present=mounted or await _is_share_present(host, mount))


async def format_device(host: "Host", mount: VolumeMount, device: str) -> None:
    """Make our file system on a blank device."""
    script = f"mkfs.ext4 -q -L {mount.label} {shlex.quote(device)}; udevadm settle 2>/dev/null || true"
    await host.run(script, timeout_s=300)


async def mount_volume(host: "Host", mount: VolumeMount) -> str:
    """Mount the volume, and check its marker file, or write it on a new volume. Return the sha256 of the mount unit.

    Raises:
        HostError: it cannot be mounted, or the marker has the name of another volume.
    """
    from pulumi_vllm.host.ssh import PutFile
    from pulumi_vllm.render import models_mount  # Jinja takes 0.1 s

    unit = models_mount(mount.kind, mount.source)
    await host.put([PutFile(unit.path, unit.text.encode(), unit.mode, unit.owner)])
    marker = shlex.quote('{"volume": "' + mount.volume_name + '"}')
    await host.run(_MOUNT.format(marker=marker, name=shlex.quote(mount.volume_name)), timeout_s=120)
    return unit.sha256


async def measure_gb(host: "Host", mount: VolumeMount) -> float:
    """Return the size of the volume's file system, which is mounted first; 0 where it cannot be.

    The file system of a block device is grown to its device here. That of a share grows at its server.
    """
    script = _ENSURE_MOUNTED + (_GROW if mount.is_block else "") + _SIZE
    return float((await host.run(script, timeout_s=300)).stdout.split()[-1]) / _BYTES_PER_GB


async def _is_share_present(host: "Host", mount: VolumeMount) -> bool:
    """Mount the share for a moment. Only kernels since 6.9 list the tags of shares, in /sys/fs/virtiofs."""
    result = await host.run(_TRY_SHARE.format(tag=shlex.quote(mount.tag)), timeout_s=30, check=False)
    return result.code == 0


_INSPECT = rf"""
echo boot "$({PRINT_BOOT_IDENTITY})"
mountpoint -q {layout.MODELS} && echo mounted
for d in /dev/vd[b-z] /dev/sd[b-z] /dev/nvme[1-9]n1; do
  [ -b "$d" ] || continue
  if blkid -p "$d" >/dev/null 2>&1; then
    label=$(blkid -p -s LABEL -o value "$d" || true)
    echo device "$d" "${{label:--other-}}"
  elif [ "$(blkid -p "$d" >/dev/null 2>&1; echo $?)" = 2 ]; then
    echo device "$d" {_BLANK}
  fi
done
exit 0
"""

_TRY_SHARE = """
directory=$(mktemp -d)
mount -t virtiofs {tag} "$directory" && {{ umount "$directory" || umount -l "$directory"; }}
code=$?
rmdir "$directory"
exit $code
"""

_ENSURE_MOUNTED = (
    f"mountpoint -q {layout.MODELS} || systemctl start {layout.MOUNT_UNIT} 2>/dev/null || true\n"
)
_GROW = f'resize2fs "$(findmnt -n -o SOURCE {layout.MODELS})" 2>&1\n'
_SIZE = f"mountpoint -q {layout.MODELS} && df --output=size -B1 {layout.MODELS} || echo 0"

_MOUNT = rf"""
mkdir -p {layout.MODELS}
systemctl daemon-reload
systemctl enable -q {layout.MOUNT_UNIT}
systemctl start {layout.MOUNT_UNIT}
mountpoint -q {layout.MODELS} || {{{{
  echo "{layout.MODELS} is no mount point although {layout.MOUNT_UNIT} started" >&2
  exit 1
}}}}
if test -e {layout.VOLUME_MARKER}; then
  grep -qF {{name}} {layout.VOLUME_MARKER} || {{{{
    echo "the file system on {layout.MODELS} belongs to another volume: $(cat {layout.VOLUME_MARKER})" >&2
    exit 1
  }}}}
else
  printf '%s\n' {{marker}} > {layout.VOLUME_MARKER}.new && mv {layout.VOLUME_MARKER}.new {layout.VOLUME_MARKER}
fi
sync {layout.VOLUME_MARKER}
"""
