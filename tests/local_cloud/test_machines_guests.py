"""Real guests: boot, login, reboot, preemption, crashes of their supervisors, volumes, and complete removal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pulumi_vllm_local.images.image_cache import ImageCache
from pulumi_vllm_local.machines import host_checks
from pulumi_vllm_local.machines.containers import Address, MachineError, Machines, MachineSpec, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(bool(host_checks.preflight()), reason="; ".join(host_checks.preflight())),
]


def sh(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False).stdout


def traces(state: Path) -> dict[str, str]:
    """Return what this local cloud could leave behind; other local clouds may run at the same time."""
    from pulumi_vllm_local.machines.names import Names

    names = Names.of(state)
    return {
        "mounts": sh(f"findmnt -rn -o TARGET | grep -F {state}"),
        "loops": sh(f"losetup -ln -O BACK-FILE | grep -F {state}"),
        "links": sh(f"ip -br link | grep -E '{names.bridge}|vb-{names.digest[:4]}g'"),
        "tables": sh(f"nft list tables | grep {names.table}"),
        "groups": sh(f"find /sys/fs/cgroup -type d -name '{names.cgroup}*'"),
        "processes": sh(f"pgrep -f 'shim.py {state}|nspawn.*{state}'"),
    }


class Cloud:
    def __init__(self, state: Path) -> None:
        self.state = state
        state.mkdir(parents=True)
        self.key = state / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.machines = Machines(state)

    def boot(self, machine_id: str, user: str = "ubuntu", **more: Any) -> Address:
        public = self.key.with_suffix(".pub").read_text().strip()
        address = self.machines.create(MachineSpec(machine_id, machine_id, (), user, public, **more))
        self.machines.start(machine_id)
        self.wait(machine_id)
        return address

    def wait(self, machine_id: str) -> None:
        self.until(lambda: self.machines.answers(machine_id))

    @staticmethod
    def until(true: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"the condition was still false after {seconds} s"
            time.sleep(0.1)

    def ssh(self, address: Address, command: str, host: str | None = None) -> str:
        options = [
            "-q",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]
        target = f"{address.user}@{host or address.host}"
        for _ in range(20):  # sshd answers shortly before cloud-init has created the user
            done = subprocess.run(
                ["ssh", "-i", str(self.key), *options, "-o", "ConnectTimeout=5", target, command],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if done.returncode != 255:
                break
            time.sleep(0.5)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def shim(self, machine_id: str) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.state / "machines" / machine_id / "shim.json").read_text())
        return found

    def boots(self, machine_id: str) -> int:
        found = self.machines.get(machine_id)
        return found.boots if found else 0


@pytest.fixture(scope="module", autouse=True)
def base() -> None:
    ImageCache().ensure("base", print)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    alone = not list(Path("/sys/class/net").glob("pvllm-*"))
    found = Cloud(tmp_path / "state")
    try:
        yield found
    finally:
        found.machines.down(purge=True)
    assert set(traces(found.state).values()) == {""}
    if alone and not list(Path("/sys/class/net").glob("pvllm-*")):
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding


def test_a_machine_boots_with_its_user_and_reaches_its_network(cloud: Cloud) -> None:
    address = cloud.boot("one", user_data={"runcmd": ["touch /var/lib/ran"]}, gpu="h200", gpu_count=4)
    other = cloud.boot("two", user="root")
    assert cloud.ssh(
        address, "sudo -n cloud-init status --wait >/dev/null; sudo -n id -u; ls /var/lib/ran"
    ) == ("0\n/var/lib/ran")
    assert cloud.ssh(address, "systemctl is-system-running --wait") == "running"
    assert cloud.ssh(other, "id -u; hostname") == "0\ntwo"
    assert cloud.ssh(other, "hostname", host=other.ipv6) == "two"
    assert (
        cloud.ssh(
            address, f"ping -c1 -q {other.host} >/dev/null; ping -c1 -q {other.ipv6} >/dev/null; echo ok"
        )
        == "ok"
    )
    assert cloud.ssh(address, "nvidia-smi -L | wc -l") == "4"
    key, other_key = (cloud.ssh(each, "cat /etc/ssh/ssh_host_ed25519_key.pub") for each in (address, other))
    assert key != other_key
    assert cloud.machines.create(cloud.machines.list()[0].spec) == address
    assert {machine.status for machine in cloud.machines.list()} == {Status.RUNNING}


def test_a_guest_installs_from_the_package_registries(cloud: Cloud) -> None:
    address = cloud.boot("one")
    cloud.ssh(
        address, "python3 -m venv /tmp/v && /tmp/v/bin/pip -q install uv && /tmp/v/bin/uv venv -q /tmp/w"
    )
    assert "iniconfig" in cloud.ssh(
        address, "/tmp/v/bin/uv pip install --link-mode=copy --python /tmp/w/bin/python iniconfig 2>&1"
    )
    cloud.ssh(
        address, "sudo -n apt-get -qq update && sudo -n apt-get -qq install -y hello >/dev/null && hello"
    )


def test_reboot_pause_kill_stop_and_destroy(cloud: Cloud) -> None:
    address = cloud.boot("one")
    machines = cloud.machines
    cloud.ssh(address, "echo kept | sudo -n tee /var/lib/kept; sync")

    machines.reboot("one")
    cloud.until(lambda: cloud.boots("one") == 2)
    cloud.wait("one")
    assert machines.state("one") == Status.RUNNING

    machines.pause("one")
    assert (machines.state("one"), machines.answers("one")) == (Status.PAUSED, False)
    machines.unpause("one")
    cloud.wait("one")

    machines.kill("one")
    assert machines.state("one") == Status.PREEMPTED
    machines.start("one")
    cloud.wait("one")
    assert cloud.ssh(address, "cat /var/lib/kept") == "kept"

    machines.stop("one")
    assert machines.state("one") == Status.STOPPED
    machines.start("one")
    cloud.wait("one")
    cloud.ssh(
        address, "sudo -n systemd-run -q --on-active=1 --timer-property=AccuracySec=100ms systemctl poweroff"
    )
    cloud.until(lambda: machines.state("one") == Status.STOPPED)

    machines.destroy("one")
    machines.destroy("one")
    assert machines.state("one") == Status.GONE
    with pytest.raises(MachineError, match="machine one: there is no machine with this id"):
        machines.start("one")


def test_guests_outlive_their_supervisors(cloud: Cloud) -> None:
    address = cloud.boot("one")
    first = cloud.shim("one")
    os.kill(first["pid"], signal.SIGKILL)
    again = Machines(cloud.state)
    assert again.reconcile() == ("machine one: still running, adopted",)
    assert cloud.shim("one")["nspawn"] == first["nspawn"]
    assert again.reconcile() == ("machine one: still running, adopted",)

    # The exit code of an adopted guest is lost, but a reboot still differs from a power-off.
    again.reboot("one")
    cloud.until(lambda: cloud.boots("one") == 2)
    cloud.wait("one")
    assert cloud.ssh(address, "hostname") == "one"

    for name in ("pid", "nspawn"):
        os.kill(cloud.shim("one")[name], signal.SIGKILL)
    assert Machines(cloud.state).reconcile() == (
        "machine one: was running, and its end was not observed; started again",
    )
    cloud.wait("one")

    os.kill(cloud.shim("one")["nspawn"], signal.SIGKILL)
    cloud.until(lambda: again.state("one") == Status.FAILED)


def test_an_incomplete_guest_is_removed(cloud: Cloud) -> None:
    cloud.boot("one")
    (cloud.state / "machines" / "one" / "made").unlink()
    assert Machines(cloud.state).reconcile() == ("machine one: was never completed; removed",)
    assert cloud.machines.state("one") == Status.GONE


def test_a_block_volume_is_attached_detached_and_keeps_its_files(cloud: Cloud) -> None:
    machines = cloud.machines
    address = cloud.boot("one")
    machines.disks.create("vol-1", 2, "block")
    assert machines.attach("one", "vol-1") == "/dev/vdb"
    assert machines.attach("one", "vol-1") == "/dev/vdb"
    cloud.ssh(address, "sudo -n mkfs.ext4 -q -L models /dev/disk/by-id/virtio-vol-1 && sudo -n mkdir /m")
    cloud.ssh(address, "for i in 1 2 3 4 5; do [ -e /dev/disk/by-label/models ] && break; sleep 1; done")
    cloud.ssh(address, "sudo -n mount LABEL=models /m && echo here | sudo -n tee /m/file && sync")
    with pytest.raises(MachineError, match="has it mounted at /m; unmount it first"):
        machines.detach("one", "vol-1")
    cloud.boot("two")
    with pytest.raises(MachineError, match="attached to machine one"):
        machines.attach("two", "vol-1")
    machines.detach("one", "vol-1", force=True)
    assert cloud.ssh(address, "ls /dev/vdb 2>&1 || true; mountpoint -q /m || echo no").endswith("no")

    machines.stop("two")
    machines.attach("two", "vol-1")
    machines.start("two")
    cloud.wait("two")
    second = machines.get("two")
    assert second is not None
    assert cloud.ssh(second.address, "sudo -n mount LABEL=models /mnt && cat /mnt/file") == "here"
    machines.kill("two")
    machines.destroy("two")
    found = machines.disks.get("vol-1")
    assert found is not None
    assert found.machine is None
    machines.disks.delete("vol-1")
    assert machines.disks.all() == ()


def test_a_share_restarts_the_machine_and_has_a_size_of_its_own(cloud: Cloud) -> None:
    machines = cloud.machines
    address = cloud.boot("one")
    machines.disks.create("vol-1", 1, "share", tag="models")
    assert machines.attach("one", "vol-1") == "models"
    cloud.wait("one")
    cloud.ssh(address, "sudo -n mkdir -p /m && sudo -n mount -t virtiofs models /m")
    cloud.ssh(
        address,
        "sudo -n dd if=/dev/zero of=/m/big bs=1M status=none 2>&1 | grep -q 'No space' && sudo -n rm /m/big",
    )
    cloud.ssh(address, "echo here | sudo -n tee /m/file")
    with pytest.raises(MachineError, match="has it mounted at /m"):
        machines.detach("one", "vol-1")
    cloud.ssh(address, "sudo -n umount /m")
    machines.detach("one", "vol-1")
    cloud.wait("one")
    assert "not found" in cloud.ssh(address, "sudo -n mount -t virtiofs models /m 2>&1 || true")


def test_two_local_clouds_run_side_by_side(cloud: Cloud, tmp_path: Path) -> None:
    other = Cloud(tmp_path / "other")
    try:
        one, two = cloud.boot("one"), other.boot("one")
        assert one.host != two.host
        assert cloud.ssh(one, "hostname") == other.ssh(two, "hostname") == "one"
    finally:
        other.machines.down(purge=True)
    assert set(traces(other.state).values()) == {""}
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1", (
        "the other local cloud still needs it"
    )
    assert cloud.ssh(one, "hostname") == "one"
