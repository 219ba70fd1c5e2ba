"""A volume attachment: which device is formatted, and how long it waits for the host."""

import shlex

import pytest
from pulumi_vllm.host.errors import Unreachable
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.lifecycle import volume_mount
from pulumi_vllm.provider.lifecycle.instance_liveness import InstanceLostError
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.resources import volume_attachment
from pulumi_vllm.provider.resources.volume_attachment import VolumeAttachment


class FakeHost:
    """A host with devices before and after the attachment, which answers the scripts of the attachment."""

    def __init__(self, cloud, volume):
        self.cloud, self.volume, self.ran = cloud, volume, []
        self.sizes, self.forgotten = [0.98], 0
        self.devices, self.added, self.late_by = {"/dev/nvme1n1": "-blank-"}, {"/dev/nvme2n1": "-blank-"}, 0

    async def get(self, *_address):
        return self

    @property
    def attached(self):
        (volume,) = [one for one in self.cloud.volumes.list() if one.handle == self.volume]
        return bool(volume.attached_to)

    async def forget(self, _host):
        self.forgotten += 1

    async def put(self, files):
        self.ran += [file.path for file in files]

    async def run(self, script, **_):
        self.ran.append(script)
        if script.endswith(volume_mount._SIZE):
            size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
            if isinstance(size, Exception):
                raise size
            return Result(f" 1B-blocks\n{size * 10**9:.0f}\n", "", 0)
        if "mount -t virtiofs" in script:
            return Result("", "", 0 if self.attached else 32)
        if script != volume_mount._INSPECT:
            return Result("", "", 0)
        devices = dict(self.devices)
        if self.attached:
            self.late_by -= 1
            devices |= self.added if self.late_by < 0 else {}
        return Result("".join(f"device {device} {label}\n" for device, label in devices.items()), "", 0)

    @property
    def formatted(self):
        return [shlex.split(script)[4].rstrip(";") for script in self.ran if script.startswith("mkfs.ext4")]


@pytest.fixture
def host(cloud, call, monkeypatch):
    """The host of an instance with a blank device of its own, and a volume that is not attached."""
    machine = cloud.running()
    api = call[0].session.cloud()
    volume = api.volumes.create("s-models-0123456789", 1, "data-crunch", "Finland 3")
    made = FakeHost(api, volume.handle)
    made.machine, made.address = machine, api.instances.get(machine).address
    monkeypatch.setattr(call[0].session, "hosts", lambda: made)
    monkeypatch.setattr(volume_attachment, "_PAUSES_S", (0.01,))
    return made


def inputs(host, **more):
    return {
        "instanceId": host.machine,
        "volumeHandle": host.volume,
        "volumeName": "s-models-0123456789",
        "mountKind": "block",
        "sizeGb": 1,
        "connection": {"host": host.address, "privateKey": "never used: no host answers here"},
    } | more


@pytest.mark.parametrize("late_by", [0, 3])
async def test_the_added_device_is_formatted_and_not_an_older_blank_one(call, host, late_by):
    host.late_by = late_by
    await VolumeAttachment().create(call[0], inputs(host))
    assert host.formatted == ["/dev/nvme2n1"]


async def test_a_volume_attached_but_not_formatted_is_attached_again(call, host):
    """As after a crash between the attachment and the formatting."""
    host.cloud.volumes.attach(host.volume, host.machine)
    await VolumeAttachment().create(call[0], inputs(host))
    assert host.formatted == ["/dev/nvme2n1"]


async def test_without_an_added_device_nothing_is_formatted(call, host, monkeypatch):
    monkeypatch.setattr(volume_attachment, "_ATTACHED_WITHIN_S", 0.1)
    host.added = {}
    with pytest.raises(UserError, match=r"the host shows no such volume .* nothing was formatted"):
        await VolumeAttachment().create(call[0], inputs(host))
    assert host.formatted == []


@pytest.mark.parametrize(
    "added",
    [{"/dev/vdb": "-other-"}, {"/dev/vdb": "-blank-", "/dev/vdc": "-blank-"}, {"/dev/vdb": "pv-else"}],
)
async def test_devices_that_may_not_be_ours_are_not_formatted(call, host, added):
    host.added = added
    with pytest.raises(UserError, match="only a single blank device may be ours; nothing was formatted"):
        await VolumeAttachment().create(call[0], inputs(host))
    assert host.formatted == []


async def test_a_volume_with_our_file_system_is_mounted_unchanged(call, host):
    host.added = {"/dev/vdb": "pv-0123456789"}
    await VolumeAttachment().create(call[0], inputs(host))
    assert host.formatted == []
    assert "/etc/systemd/system/models.mount" in host.ran


async def test_a_share_is_recognized_by_mounting_it_for_a_moment(call, host):
    new = inputs(host, mountKind="virtiofs", mountTag="models")
    _, outputs = await VolumeAttachment().create(call[0], new)
    assert outputs["source"] == "models"
    tried = [script for script in host.ran if "mount -t virtiofs models " in script]
    assert len(tried) == 2, "once before the attachment and once after it"
    assert host.formatted == []


GONE = Unreachable("root@10.77.0.2: can't be reached")


@pytest.mark.parametrize("kind", ["block", "virtiofs"])
async def test_an_update_waits_until_the_file_system_has_grown(call, host, kind):
    """The host shows 295 of 300 GB at first and 314.6 of 320 at the end. It may restart in between."""
    host.devices |= {"/dev/vdb": "pv-0123456789"}
    host.cloud.volumes.attach(host.volume, host.machine)
    host.sizes = [295.0, GONE, 295.0, 314.6] if kind == "virtiofs" else [295.0, 295.0, 295.0, 314.6]
    old = inputs(host, mountKind=kind, mountTag="t", sizeGb=300) | {"fileSystemGb": 295.0}
    outputs = await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
    assert (outputs["fileSystemGb"], host.sizes) == (314.6, [314.6])
    assert host.forgotten == (kind == "virtiofs")
    assert not [line for line in call[1] if "although" in line]


async def test_a_file_system_that_does_not_grow_is_a_warning(call, host, monkeypatch):
    monkeypatch.setattr(volume_attachment, "_GROWN_WITHIN_S", 0.1)
    host.devices |= {"/dev/vdb": "pv-0123456789"}
    host.cloud.volumes.attach(host.volume, host.machine)
    host.sizes = [295.0]
    old = inputs(host, sizeGb=300) | {"fileSystemGb": 295.0}
    await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
    assert [line for line in call[1] if "/models has 295 GB although its volume has 320" in line]


async def test_an_instance_reclaimed_while_its_share_grows_ends_the_wait(call, cloud, host):
    host.cloud.volumes.attach(host.volume, host.machine)
    host.sizes = [295.0, GONE]
    cloud.sim(f"reclaim/{host.machine}")
    cloud.until(lambda: cloud.status(host.machine) == "terminated-provider")
    old = inputs(host, mountKind="virtiofs", mountTag="t", sizeGb=300) | {"fileSystemGb": 295.0}
    with pytest.raises(
        InstanceLostError, match=rf"\({host.machine}\) was reclaimed by the provider; `pulumi up --refresh`"
    ):
        await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
