"""A volume at a machine: which disk is formatted, and what is waited for."""

import shlex

import pytest
from pulumi_vllm.host.ssh import Result, Unreachable
from pulumi_vllm.provider.lifecycle.machine_state import InstanceLostError
from pulumi_vllm.provider.plugin.resource import UserError
from pulumi_vllm.provider.resources import volume_attachment as attachment
from pulumi_vllm.provider.resources.volume_attachment import VolumeAttachment


class Guest:
    """What the machine shows: its disks, before the volume is there and after, as the look's script prints them."""

    def __init__(self, cloud, volume):
        self.cloud, self.volume, self.ran = cloud, volume, []
        self.sizes, self.forgotten = [0.98], 0
        self.disks, self.comes, self.late_looks = {"/dev/nvme1n1": "-blank-"}, {"/dev/nvme2n1": "-blank-"}, 0

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
        if script.endswith(attachment._SIZE):
            size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
            if isinstance(size, Exception):
                raise size
            return Result(f" 1B-blocks\n{size * 10**9:.0f}\n", "", 0)
        if script != attachment._LOOK:
            return Result("", "", 0)
        shown = dict(self.disks)
        if self.attached:
            self.late_looks -= 1
            shown |= self.comes if self.late_looks < 0 else {}
        return Result("".join(f"device {disk} {label}\n" for disk, label in shown.items()), "", 0)

    @property
    def formatted(self):
        return [shlex.split(script)[4].rstrip(";") for script in self.ran if script.startswith("mkfs.ext4")]


@pytest.fixture
def guest(cloud, call, monkeypatch):
    """A machine of the simulated API with a blank disk of its own, and a volume that is not attached."""
    machine = cloud.running()
    api = call[0].session.cloud()
    volume = api.volumes.create("s-models-0123456789", 1, "data-crunch", "Finland 3")
    made = Guest(api, volume.handle)
    made.machine, made.address = machine, api.instances.get(machine).address
    monkeypatch.setattr(call[0].session, "hosts", lambda: made)
    monkeypatch.setattr(attachment, "pause_s", lambda _attempt: 0.01)
    return made


def wish(guest, **more):
    return {
        "instanceId": guest.machine,
        "volumeHandle": guest.volume,
        "volumeName": "s-models-0123456789",
        "mountKind": "block",
        "sizeGb": 1,
        "connection": {"host": guest.address, "privateKey": "never used: no machine here answers"},
    } | more


@pytest.mark.parametrize("late_looks", [0, 3])
async def test_the_disk_that_came_is_formatted_and_not_the_machine_s_own(call, guest, late_looks):
    guest.late_looks = late_looks
    await VolumeAttachment().create(call[0], wish(guest))
    assert guest.formatted == ["/dev/nvme2n1"]


async def test_a_disk_that_was_attached_and_not_formatted_is_told_from_the_machine_s_own(call, guest):
    """As after a crash between the two."""
    guest.cloud.volumes.attach(guest.volume, guest.machine)
    await VolumeAttachment().create(call[0], wish(guest))
    assert guest.formatted == ["/dev/nvme2n1"]


async def test_a_disk_that_never_comes_leaves_the_machine_s_own_alone(call, guest, monkeypatch):
    monkeypatch.setattr(attachment, "_ATTACHED_WITHIN_S", 0.1)
    guest.comes = {}
    with pytest.raises(UserError, match=r"the machine shows no such disk .* nothing was formatted"):
        await VolumeAttachment().create(call[0], wish(guest))
    assert guest.formatted == []


@pytest.mark.parametrize(
    "comes",
    [{"/dev/vdb": "-other-"}, {"/dev/vdb": "-blank-", "/dev/vdc": "-blank-"}, {"/dev/vdb": "pv-else"}],
)
async def test_what_may_not_be_ours_is_not_formatted(call, guest, comes):
    guest.comes = comes
    with pytest.raises(UserError, match="only one blank disk may be ours; nothing was formatted"):
        await VolumeAttachment().create(call[0], wish(guest))
    assert guest.formatted == []


async def test_a_volume_with_our_file_system_is_mounted_as_it_is(call, guest):
    guest.comes = {"/dev/vdb": "pv-0123456789"}
    await VolumeAttachment().create(call[0], wish(guest))
    assert guest.formatted == []
    assert "/etc/systemd/system/models.mount" in guest.ran


GONE = Unreachable("root@10.77.0.2: can't be reached")


@pytest.mark.parametrize("kind", ["block", "virtiofs"])
async def test_a_size_that_came_is_waited_for_however_small_the_growth(call, guest, kind):
    """295 of 300 GB are shown at first, 314.6 of 320 at the end; the machine may restart between the two."""
    guest.disks |= {"/dev/vdb": "pv-0123456789"}
    guest.cloud.volumes.attach(guest.volume, guest.machine)
    guest.sizes = [295.0, GONE, 295.0, 314.6] if kind == "virtiofs" else [295.0, 295.0, 295.0, 314.6]
    old = wish(guest, mountKind=kind, mountTag="t", sizeGb=300) | {"fileSystemGb": 295.0}
    outputs = await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
    assert (outputs["fileSystemGb"], guest.sizes) == (314.6, [314.6])
    assert guest.forgotten == (kind == "virtiofs")
    assert not [line for line in call[1] if "although" in line]


async def test_a_file_system_that_does_not_grow_is_said(call, guest, monkeypatch):
    monkeypatch.setattr(attachment, "_GROWN_WITHIN_S", 0.1)
    guest.disks |= {"/dev/vdb": "pv-0123456789"}
    guest.cloud.volumes.attach(guest.volume, guest.machine)
    guest.sizes = [295.0]
    old = wish(guest, sizeGb=300) | {"fileSystemGb": 295.0}
    await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
    assert [line for line in call[1] if "/models shows 295 GB although its volume has 320" in line]


async def test_a_machine_that_is_taken_while_its_share_grows_is_not_waited_for(call, cloud, guest):
    guest.cloud.volumes.attach(guest.volume, guest.machine)
    guest.sizes = [295.0, GONE]
    cloud.sim(f"reclaim/{guest.machine}")
    cloud.until(lambda: cloud.status(guest.machine) == "terminated-provider")
    old = wish(guest, mountKind="virtiofs", mountTag="t", sizeGb=300) | {"fileSystemGb": 295.0}
    with pytest.raises(
        InstanceLostError, match=rf"\({guest.machine}\) was reclaimed by the provider; `pulumi up --refresh`"
    ):
        await VolumeAttachment().update(call[0], "id", old, old | {"sizeGb": 320})
