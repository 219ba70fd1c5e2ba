"""A volume at a machine: attached in the cloud, mounted on /models in the guest, proved by a marker."""

import shlex
import time
from typing import Any

from pulumi_vllm.provider.lifecycle.host_connection import (
    CONNECTION,
    INSTANCE_ID,
    REACHABLE,
    connect_host,
    observe,
)
from pulumi_vllm.provider.lifecycle.machine_state import check_instance_alive, pause_s
from pulumi_vllm.provider.plugin.resource import Call, Property, Reading, Resource, UserError, Values, reveal

_MARKER = "/models/.pulumi-vllm-volume"
# Attach restarts the machine where volumes are shares; 45 s without SSH were seen, 10 min is the API's own limit.
_ATTACHED_WITHIN_S = 600.0
_GROWN_WITHIN_S = 180.0
_LETS_GO_WITHIN_LOOKS = 5
_BLANK = "-blank-"
_GROWN_BY = 0.8  # of what the volume grew by: a file system's own tables take less than the rest


class VolumeAttachment(Resource):
    """`vllm:spheron:VolumeAttachment`."""

    token = "vllm:spheron:VolumeAttachment"
    description = "A volume attached to a machine and mounted on /models. May restart the machine."
    inputs = {
        "instanceId": INSTANCE_ID,
        "volumeHandle": Property("string", "Handle of the volume.", required=True, replaces=True),
        "volumeName": Property(
            "string", "Name of the volume; written into the marker file.", required=True, silent=True
        ),
        "mountKind": Property("string", "block, virtiofs or nfs.", required=True, silent=True),
        "mountTag": Property("string", "virtiofs tag.", silent=True),
        "sizeGb": Property(
            "integer", "Size of the volume in GB; when it has grown, the file system of a disk grows too."
        ),
        "connection": CONNECTION,
        "mounted": Property("boolean", "Whether it should be mounted (default true)."),
    }
    outputs = {
        "source": Property("string", "What is mounted: a device's label or a share's tag."),
        "restarted": Property("boolean", "Whether attaching restarted the machine."),
        "reachable": REACHABLE,
        "fileSystemGb": Property(
            "number", "Size of /models in GB, as the machine showed it when it was mounted."
        ),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Any]:
        """Mounted unless said otherwise."""
        new.setdefault("mounted", True)
        return []

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Attach where it isn't, survive the restart, mount, prove it."""
        outputs = await self._attach_and_mount(call, new)
        return f"{new['volumeHandle']}@{new['instanceId']}", outputs

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Put it back: attached, mounted, and as large as the volume, whose growth may restart the machine."""
        grown = None not in (old.get("sizeGb"), new.get("sizeGb")) and new["sizeGb"] > old["sizeGb"]
        if grown and new["mountKind"] != "block":
            await self._grown(call, old, new)
        outputs = await self._attach_and_mount(call, new)
        if grown and new["mountKind"] == "block":
            outputs["fileSystemGb"] = await self._grown(call, old, new)
        return outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Attached in the cloud, mounted in the guest."""
        values = {**state, **inputs}
        volume = await self._volume(call, str(values["volumeHandle"]), missing_ok=True)
        outputs = {name: state.get(name) for name in self.outputs}
        if volume is None or values["instanceId"] not in volume.attached_to:
            return None
        facts = await observe(call, values)
        if facts is None:
            return Reading({**outputs, "reachable": False}, inputs)
        mounted = "/models" in facts.mounts
        if not mounted and inputs.get("mounted", True):
            await call.warn(f"{call.name}: /models is not mounted on the machine; `pulumi up` mounts it")
        return Reading({**outputs, "reachable": True}, {**inputs, "mounted": mounted})

    # -- the cloud ----------------------------------------------------------------------------------
    async def _volume(self, call: Call, handle: str, *, missing_ok: bool = False) -> Any:
        for volume in await call.session.ask(call.session.cloud().volumes.list):
            if volume.handle == handle:
                return volume
        if missing_ok:
            return None
        raise UserError(f"{call.name}: the cloud knows no volume {handle}; run `pulumi up --refresh`")

    async def _attach_and_mount(self, call: Call, new: Values) -> Values:
        cloud, handle, machine = call.session.cloud(), str(new["volumeHandle"]), str(new["instanceId"])
        volume = await self._volume(call, handle)
        for other in volume.attached_to:
            if other != machine:
                await self._release(call, volume, other)
        before = await self._look(call, new)
        restarted = False
        if machine not in volume.attached_to or not before["present"]:
            if machine in volume.attached_to:  # a relation without a device, or with one that is blank still
                await call.session.ask(cloud.volumes.detach, handle, machine, ignore_refusal=True)
                before = await self._without(call, new, before)
            await call.progress(f"attaching {new['volumeName']}")
            async with call.session.critical():
                await call.session.ask(cloud.volumes.attach, handle, machine)
        after = await self._wait_present(call, new, before)
        restarted = after["boot"] != before["boot"]
        source, size_gb = await self._mount(call, new, before, after)
        return {"source": source, "restarted": restarted, "reachable": True, "fileSystemGb": size_gb}

    async def _release(self, call: Call, volume: Any, other: str) -> None:
        holder = await call.session.ask(call.session.cloud().instances.get, other)
        if holder is not None and not holder.terminal:
            raise UserError(
                f"{call.name}: the volume {volume.name} is attached to {holder.name} ({other}), which is "
                f"{holder.status}; a volume has one writer. Destroy that stack, or use another volume"
            )
        await call.session.ask(call.session.cloud().volumes.detach, volume.handle, other, ignore_refusal=True)

    # -- the guest ----------------------------------------------------------------------------------
    async def _look(self, call: Call, new: Values) -> Values:
        """Boot id, block devices and shares of the guest; and whether ours is among them."""
        host = await connect_host(call, new)
        result = await host.run(_LOOK, timeout_s=30)
        rows = [line.split() for line in result.stdout.splitlines()]
        seen: Values = {"boot": "", "devices": {}, "mounted": False}
        for row in rows:
            if row[0] == "boot":
                seen["boot"] = row[1]
            elif row[0] == "device":
                seen["devices"][row[1]] = row[2] if len(row) > 2 else ""  # noqa: PLR2004 (label, or none)
            elif row[0] == "mounted":
                seen["mounted"] = True
        kind = new["mountKind"]
        if kind == "block":
            seen["present"] = self._label(new) in seen["devices"].values()
        else:
            seen["present"] = seen["mounted"] or await self._share_is_there(host, new)
        return seen

    async def _grown(self, call: Call, old: Values, new: Values) -> float:
        """Until the guest shows the new size, in GB; a share's machine may restart meanwhile."""
        from pulumi_vllm.host.ssh import AuthRefused, Unreachable

        # A state of an earlier version has no size: then there is nothing to compare with.
        at_least = (old.get("fileSystemGb") or 0.0) + _GROWN_BY * (new["sizeGb"] - old["sizeGb"])
        began, attempt, shown = time.monotonic(), 0, 0.0
        while (waited := time.monotonic() - began) < _GROWN_WITHIN_S:
            try:
                shown = await self._measure(await connect_host(call, new), new)
            except (Unreachable, AuthRefused):
                await call.session.hosts().forget(reveal(new["connection"])["host"])
                await check_instance_alive(call, new)
            if shown >= at_least:
                return shown
            await call.progress(f"waiting for {new['volumeName']} to grow in the machine ({waited:.0f} s)")
            await call.sleep(pause_s(attempt))
            attempt += 1
        await call.warn(
            f"{call.name}: /models shows {shown:.0f} GB although its volume has {new['sizeGb']}; "
            "restart the machine if it stays so"
        )
        return shown

    async def _measure(self, host: Any, new: Values) -> float:
        """GB of the file system on /models, which is mounted first; a disk's grows here, a share's at its server."""
        script = _MOUNTED + (_GROW if new["mountKind"] == "block" else "") + _SIZE
        return float((await host.run(script, timeout_s=300)).stdout.split()[-1]) / 1e9

    async def _share_is_there(self, host: Any, new: Values) -> bool:
        tag = shlex.quote(str(new.get("mountTag")))
        script = f"grep -qsx {tag} /sys/fs/virtiofs/*/tag || test -d /run/lc-shares/{tag}"
        return bool((await host.run(script, timeout_s=30, check=False)).code == 0)

    async def _wait_present(self, call: Call, new: Values, before: Values) -> Values:
        """Until the guest shows a volume; the old sshd may answer for a while before a restart."""
        from pulumi_vllm.host.ssh import HostError

        began, attempt = time.monotonic(), 0
        while (waited := time.monotonic() - began) < _ATTACHED_WITHIN_S:
            try:
                seen = await self._look(call, new)
            except HostError:
                await call.session.hosts().forget(reveal(new["connection"])["host"])
                await check_instance_alive(call, new)
            else:
                if seen["present"] or (new["mountKind"] == "block" and self._fresh(before, seen)):
                    return seen
            await call.progress(f"waiting for {new['volumeName']} to appear in the machine ({waited:.0f} s)")
            await call.sleep(pause_s(attempt))
            attempt += 1
        raise UserError(
            f"{call.name}: {new['volumeName']} is attached at the cloud, but the machine shows no such disk after "
            f"{_ATTACHED_WITHIN_S / 60:.0f} min; nothing was formatted. Look with `lsblk`, then run `pulumi up` again"
        )

    async def _without(self, call: Call, new: Values, before: Values) -> Values:
        """What the guest shows without our volume, which it may take a moment to let go of."""
        if new["mountKind"] != "block" or _BLANK not in before["devices"].values():
            return before
        for attempt in range(_LETS_GO_WITHIN_LOOKS):
            seen = await self._look(call, new)
            if len(seen["devices"]) < len(before["devices"]):
                return seen
            await call.sleep(pause_s(attempt))
        return before

    def _fresh(self, before: Values, seen: Values) -> list[str]:
        """Disks that came with the attach; an older blank one may be the machine's own."""
        return [device for device in seen["devices"] if device not in before["devices"]]

    def _label(self, new: Values) -> str:
        return "pv-" + str(new["volumeName"])[-10:]  # ext4 labels end at 16 characters

    async def _mount(self, call: Call, new: Values, before: Values, after: Values) -> tuple[str, float]:
        from pulumi_vllm.host.ssh import PutFile
        from pulumi_vllm.render import models_mount

        host = await connect_host(call, new)
        if new["mountKind"] == "block":
            source = f"LABEL={self._label(new)}"
            if not after["present"]:
                device = self._to_format(call, before, after)
                await call.info(f"formatting {device} (blank) as ext4 {self._label(new)}")
                await host.run(
                    f"mkfs.ext4 -q -L {self._label(new)} {shlex.quote(device)}; udevadm settle 2>/dev/null || true",
                    timeout_s=300,
                )
        else:
            source = str(new["mountTag"])
        unit = models_mount(new["mountKind"], source)
        await host.put([PutFile(unit.path, unit.text.encode(), unit.mode, unit.owner)])
        marker = shlex.quote('{"volume": "' + str(new["volumeName"]) + '"}')
        script = _MOUNT.format(marker=marker, path=_MARKER, name=shlex.quote(str(new["volumeName"])))
        await host.run(script, timeout_s=120)
        return source, await self._measure(host, new)

    def _to_format(self, call: Call, before: Values, after: Values) -> str:
        fresh = self._fresh(before, after)
        if [after["devices"][device] for device in fresh] != [_BLANK]:
            raise UserError(
                f"{call.name}: the attach brought {', '.join(fresh)}, and only one blank disk may be ours; nothing was "
                "formatted. Look with `lsblk -f`, detach the others, then run `pulumi up` again"
            )
        return fresh[0]


_LOOK = r"""
echo boot "$(cat /proc/sys/kernel/random/boot_id)-$(stat -c %Y /proc/1)"
mountpoint -q /models && echo mounted
for d in /dev/vd[b-z] /dev/sd[b-z] /dev/nvme[1-9]n1; do
  [ -b "$d" ] || continue
  if blkid -p "$d" >/dev/null 2>&1; then
    label=$(blkid -p -s LABEL -o value "$d" || true)
    echo device "$d" "${label:--other-}"
  elif [ "$(blkid -p "$d" >/dev/null 2>&1; echo $?)" = 2 ]; then
    echo device "$d" -blank-
  fi
done
exit 0
"""

_MOUNTED = "mountpoint -q /models || systemctl start models.mount 2>/dev/null || true\n"
_GROW = 'resize2fs "$(findmnt -n -o SOURCE /models)" 2>&1\n'
_SIZE = "mountpoint -q /models && df --output=size -B1 /models || echo 0"

_MOUNT = r"""
mkdir -p /models
systemctl daemon-reload
systemctl enable -q models.mount
systemctl start models.mount
mountpoint -q /models || {{ echo "/models is no mount point although models.mount started" >&2; exit 1; }}
if test -e {path}; then
  grep -qF {name} {path} || {{ echo "the disk on /models belongs to another volume: $(cat {path})" >&2; exit 1; }}
else
  printf '%s\n' {marker} > {path}.new && mv {path}.new {path}
fi
sync {path}
"""
