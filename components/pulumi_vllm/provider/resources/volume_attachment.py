"""A volume at an instance: attached in the cloud, mounted on the host, recognized by a marker file."""

from typing import TYPE_CHECKING

from pulumi_vllm.host import drift
from pulumi_vllm.host.errors import AuthRefused, HostError, Unreachable
from pulumi_vllm.provider.lifecycle.host_connection import (
    CONNECTION,
    DIFFERENCES,
    INSTANCE_ID,
    OBSERVED,
    REACHABLE,
    SHARED_INPUTS,
    HostResource,
    NotObserved,
    connect_host,
    observe,
    refuse,
    repair,
    report,
)
from pulumi_vllm.provider.lifecycle.instance_liveness import check_instance_alive
from pulumi_vllm.provider.lifecycle.poll import API_PAUSES_S, PollTimeoutError, poll
from pulumi_vllm.provider.lifecycle.volume_mount import (
    HostVolumes,
    VolumeMount,
    format_device,
    inspect,
    measure_gb,
    mount_volume,
)
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Values
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.spheron.models import Volume

# Attaching a share restarts the instance. 45 s without SSH were observed; 10 min is the API's own limit.
_ATTACHED_WITHIN_S = 600.0
_DETACHED_WITHIN_S = 9.0
_GROWN_WITHIN_S = 180.0
_PAUSES_S = API_PAUSES_S
# Part of the volume's growth that the file system must show. Its own tables take less than the rest.
_GROWN_PART = 0.8


class VolumeAttachment(HostResource):
    """`vllm:spheron:VolumeAttachment`."""

    token = "vllm:spheron:VolumeAttachment"
    description = (
        f"A volume attached to an instance and mounted on {layout.MODELS}. May restart the instance."
    )
    inputs = {
        "instanceId": INSTANCE_ID,
        "volumeHandle": Property("string", "Handle of the volume.", required=True, replaces=True),
        "volumeName": Property(
            "string", "Name of the volume, which is written into the marker file.", required=True, silent=True
        ),
        "mountKind": Property("string", "block, virtiofs or nfs.", required=True, silent=True),
        "mountTag": Property("string", "Tag of a virtiofs share.", silent=True),
        "sizeGb": Property(
            "integer", "Size of the volume in GB. When it grows, its file system on a block device grows too."
        ),
        "connection": CONNECTION,
        **SHARED_INPUTS,
        "mounted": Property("boolean", "Whether it should be mounted (default true)."),
        "differences": DIFFERENCES,
    }
    outputs = {
        "source": Property("string", "What is mounted: the label of a device or the tag of a share."),
        "unitSha256": Property("string", "sha256 of the unit that mounts it."),
        "restarted": Property("boolean", "Whether the attachment restarted the instance."),
        "reachable": REACHABLE,
        "fileSystemGb": Property(
            "number", f"Size of {layout.MODELS} in GB, as the host showed it when it was mounted."
        ),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Add defaults: mounted, and nothing else that differs."""
        new.setdefault("mounted", True)
        new.setdefault("differences", {})
        return await super().check(call, new, old)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Attach the volume where it is not attached, survive the restart, and mount it."""
        outputs = await self._attach_and_mount(call, new)
        return f"{new['volumeHandle']}@{new['instanceId']}", outputs

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Attach and mount it again, repair what differs, and let its file system grow with the volume."""
        if old.get("differences"):  # mounting again would write our marker on a file system that is not ours
            found = await self._differences(call, new, old.get("unitSha256"))
            refuse(call, [one for one in found if not one.repairable])
        grown = None not in (old.get("sizeGb"), new.get("sizeGb")) and new["sizeGb"] > old["sizeGb"]
        is_block = new["mountKind"] == "block"
        if grown and not is_block:  # the growth of a share may restart its instance
            await self._wait_grown(call, old, new)
        outputs = await self._attach_and_mount(call, new)
        if old.get("differences"):
            found = await self._differences(call, new, outputs["unitSha256"])
            await repair(call, await connect_host(call, new), found)
            refuse(call, await self._differences(call, new, outputs["unitSha256"]))
        if grown and is_block:
            outputs["fileSystemGb"] = await self._wait_grown(call, old, new)
        return outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return whether the volume is attached in the cloud and mounted on the host."""
        values = {**state, **inputs}
        volume = await self._find_volume(call, str(values["volumeHandle"]))
        outputs = {name: state.get(name) for name in self.outputs}
        if volume is None or values["instanceId"] not in volume.attached_to:
            return None
        facts = await observe(call, values)
        if isinstance(facts, NotObserved):
            return facts.reading(outputs, inputs)
        mounted = layout.MODELS in facts.mounts
        if not mounted and inputs.get("mounted", True):
            await call.warn(f"{call.name}: {layout.MODELS} is not mounted on the host; `pulumi up` mounts it")
        found = drift.volume(facts, name=str(values["volumeName"]), unit_sha256=state.get("unitSha256"))
        live = {"mounted": mounted, **await report(call, found), **OBSERVED}
        return Reading({**outputs, "reachable": True}, {**inputs, **live})

    async def _differences(
        self, call: Call, new: Values, unit_sha256: str | None
    ) -> "tuple[drift.Difference, ...]":
        host = await connect_host(call, new)
        call.session.hosts().mark_changed(host)
        facts = await call.session.hosts().facts(host)
        return drift.volume(facts, name=str(new["volumeName"]), unit_sha256=unit_sha256)

    # -- the cloud ----------------------------------------------------------------------------------
    async def _find_volume(self, call: Call, handle: str) -> "Volume | None":
        volumes = await call.session.ask(call.session.cloud().volumes.list)
        return next((volume for volume in volumes if volume.handle == handle), None)

    async def _attach_and_mount(self, call: Call, new: Values) -> Values:
        handle, instance_id = str(new["volumeHandle"]), str(new["instanceId"])
        volumes = call.session.cloud().volumes
        volume = await self._find_volume(call, handle)
        if volume is None:
            raise UserError(
                f"{call.name}: the cloud does not list the volume {handle}; run `pulumi up --refresh`"
            )
        for holder_id in volume.attached_to:
            if holder_id != instance_id:
                await self._detach_from_ended(call, volume, holder_id)
        mount = _mount_of(new)
        before = await inspect(await connect_host(call, new), mount)
        attached = instance_id in volume.attached_to
        if not attached or not before.present:
            if attached:  # in the cloud's list only, or with a device that is still blank
                await call.session.ask(volumes.detach, handle, instance_id, ignore_refusal=True)
                before = await self._wait_detached(call, new, before)
            await call.progress(f"attaching {new['volumeName']}")
            async with call.session.critical():
                await call.session.ask(volumes.attach, handle, instance_id)
        after = await self._wait_attached(call, new, before)
        host = await connect_host(call, new)
        if mount.is_block and not after.present:
            device = self._device_to_format(call, before, after)
            await call.info(f"formatting {device} (blank) as ext4 {mount.label}")
            await format_device(host, mount, device)
        unit_sha256 = await mount_volume(host, mount)
        return {
            "unitSha256": unit_sha256,
            "source": mount.source,
            "restarted": after.boot != before.boot,
            "reachable": True,
            "fileSystemGb": await measure_gb(host, mount),
        }

    async def _detach_from_ended(self, call: Call, volume: "Volume", holder_id: str) -> None:
        """Detach a volume from another instance, which must have ended."""
        holder = await call.session.ask(call.session.cloud().instances.get, holder_id)
        if holder is not None and not holder.terminal:
            raise UserError(
                f"{call.name}: the volume {volume.name} is attached to {holder.name} ({holder_id}), which is "
                f"{holder.status}; a volume has one writer. Destroy that stack, or use another volume"
            )
        volumes = call.session.cloud().volumes
        await call.session.ask(volumes.detach, volume.handle, holder_id, ignore_refusal=True)

    # -- the host -----------------------------------------------------------------------------------
    async def _wait_attached(self, call: Call, new: Values, before: HostVolumes) -> HostVolumes:
        """Wait until the host has the volume. Before a restart, the old sshd may still answer."""
        mount = _mount_of(new)

        async def attached() -> HostVolumes | None:
            try:
                found = await inspect(await connect_host(call, new), mount)
            except HostError:
                await self._expect_restart(call, new)
                return None
            is_new_device = mount.is_block and bool(found.added_since(before))
            return found if found.present or is_new_device else None

        try:
            return await poll(
                call,
                attached,
                within_s=_ATTACHED_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"waiting for {mount.volume_name} to appear on the host",
            )
        except PollTimeoutError:
            raise UserError(
                f"{call.name}: {mount.volume_name} is attached in the cloud, but the host shows no such volume after "
                f"{_ATTACHED_WITHIN_S / 60:.0f} min; nothing was formatted. Look with `lsblk`, then run `pulumi up` "
                "again"
            ) from None

    async def _wait_detached(self, call: Call, new: Values, before: HostVolumes) -> HostVolumes:
        """Wait until the host no longer has a blank device of our volume, which may take a moment."""
        mount = _mount_of(new)
        if not mount.is_block or not before.has_blank_device:
            return before

        async def detached() -> HostVolumes | None:
            found = await inspect(await connect_host(call, new), mount)
            return found if len(found.labels) < len(before.labels) else None

        try:
            return await poll(
                call,
                detached,
                within_s=_DETACHED_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"waiting for {mount.volume_name} to disappear from the host",
            )
        except PollTimeoutError:
            return before

    async def _wait_grown(self, call: Call, old: Values, new: Values) -> float:
        """Wait until the host shows the new size, and return it in GB. An instance with a share may restart."""
        mount, size_gb = _mount_of(new), 0.0
        # The state of an earlier version has no size to compare with.
        at_least = (old.get("fileSystemGb") or 0.0) + _GROWN_PART * (new["sizeGb"] - old["sizeGb"])

        async def grown() -> float | None:
            nonlocal size_gb
            try:
                size_gb = await measure_gb(await connect_host(call, new), mount)
            except (Unreachable, AuthRefused):
                await self._expect_restart(call, new)
            return size_gb if size_gb >= at_least else None

        try:
            return await poll(
                call,
                grown,
                within_s=_GROWN_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"waiting for the file system of {mount.volume_name} to grow",
            )
        except PollTimeoutError:
            await call.warn(
                f"{call.name}: {layout.MODELS} has {size_gb:.0f} GB although its volume has {new['sizeGb']}; "
                "restart the instance if this remains"
            )
            return size_gb

    async def _expect_restart(self, call: Call, new: Values) -> None:
        """Drop the connection to a host that does not answer, and check that its instance still exists."""
        await call.session.hosts().forget(reveal(new["connection"])["host"])
        await check_instance_alive(call, new)

    def _device_to_format(self, call: Call, before: HostVolumes, after: HostVolumes) -> str:
        """Return the one blank device that the attachment brought."""
        added = after.added_since(before)
        if len(added) != 1 or not after.all_blank(added):
            raise UserError(
                f"{call.name}: the attachment brought {', '.join(added)}, and only a single blank device may be ours; "
                "nothing was formatted. Look with `lsblk -f`, detach the others, then run `pulumi up` again"
            )
        return added[0]


def _mount_of(inputs: Values) -> VolumeMount:
    return VolumeMount(str(inputs["volumeName"]), str(inputs["mountKind"]), inputs.get("mountTag") or "")
