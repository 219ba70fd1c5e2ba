"""The whole local cloud, with real guests behind the API that are killed, adopted, reclaimed and removed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests
from pulumi_vllm.cli import local
from pulumi_vllm_local import control, settings
from pulumi_vllm_local.machines.names import Names

BOOTED = 'systemctl show -p UserspaceTimestampMonotonic --value; cat /proc/1/stat | cut -d" " -f22'

pytestmark = pytest.mark.ci


class Cloud:
    """A client of one cloud, with its own SSH key."""

    def __init__(self, folder: Path):
        self.state_dir, self.key = folder / "cloud", folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.up()

    def up(self):
        self.running = control.up(self.state_dir, local.ENGINE_LOCKS)
        self.headers = {"Authorization": f"Bearer {self.running.api_key}"}
        return self.running

    def call(self, method, path, body=None, status=None):
        answer = requests.request(
            method, f"{self.running.url}/api/{path}", headers=self.headers, json=body, timeout=120
        )
        assert answer.status_code in ([status] if status else [200, 201]), answer.text
        return answer.json()

    def create(self, provider, name, gpu="cpu", count=0, **more):
        groups = self.call("GET", f"gpu-offers?limit=50&search={gpu}")["data"]
        offer = next(
            item
            for item in groups[0]["offers"]
            if (item["provider"], item["gpuCount"], item["instanceType"]) == (provider, count, "DEDICATED")
        )
        body = {
            "provider": provider, "offerId": offer["offerId"], "gpuType": groups[0]["gpuType"], "gpuCount": count,
            "region": offer["clusters"][0], "operatingSystem": offer["os_options"][0],
            "instanceType": "DEDICATED", "teamId": self.call("GET", "teams")["teams"][0]["id"], "name": name,
            "ssh_public_key": self.key.with_suffix(".pub").read_text().strip(), **more,
        }  # fmt: skip
        return self.call("POST", "deployments", body)["id"]

    def wait(self, machine, status="running", limit_s=90):
        until = time.monotonic() + limit_s
        while (found := self.call("GET", f"deployments/{machine}"))["status"] != status:
            assert time.monotonic() < until, found
            time.sleep(0.3)
        return found["ipAddress"]

    def ssh(self, user, address, script, check=True):
        done = subprocess.run(
            ["ssh", "-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3", "-o", "BatchMode=yes", f"{user}@{address}",
             f"sudo -n bash -euc '{script}'"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip() if done.returncode == 0 else None

    def until(self, user, address, script, limit_s=60):
        end = time.monotonic() + limit_s
        while (found := self.ssh(user, address, script, check=False)) is None:
            assert time.monotonic() < end, f"{script}: never came true"
            time.sleep(0.5)
        return found

    def volume(self, provider, region, name):
        body = {"name": name, "sizeInGb": 1, "provider": provider, "region": region}
        return self.call("POST", "volumes", body)["volumeId"]


def _traces(state_dir: Path) -> list[str]:
    """Return what a cloud could leave behind: mounts, loops, processes, links, tables and groups with its names."""
    names = Names.of(state_dir)
    ours = (str(state_dir), names.bridge, names.cgroup, names.table)
    commands = (["losetup", "-a"], ["ps", "-eo", "args"], ["ip", "-br", "link"], ["nft", "list", "tables"],
                ["find", "/sys/fs/cgroup", "-maxdepth", "3", "-type", "d"])  # fmt: skip
    text = Path("/proc/self/mounts").read_text()
    for words in commands:
        text += subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [line for line in text.splitlines() if any(name in line for name in ours)]


@pytest.fixture
def cloud(tmp_path):
    found = Cloud(tmp_path)
    yield found
    control.down(found.state_dir, purge=True)
    assert _traces(found.state_dir) == []


def test_a_machine_with_a_block_volume_survives_a_killed_cloud(cloud):
    init = {"runcmd": ["touch /root/honoured"], "writeFiles": [{"path": "/root/file", "content": "later"}]}
    machine = cloud.create("data-crunch", "one", cloudInit=init)
    disk = cloud.volume("data-crunch", "Finland 3", "weights")
    address = cloud.wait(machine)
    cloud.until("root", address, "test -e /root/honoured && grep -q later /root/file")
    cloud.call("POST", f"volumes/{disk}/attach", {"deploymentId": machine})
    cloud.ssh(
        "root", address, "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && echo data > /mnt/file && sync"
    )
    refused = cloud.call("POST", f"volumes/{disk}/detach", {"deploymentId": machine}, 400)
    assert "mounted" in refused["message"]
    boot = cloud.ssh("root", address, BOOTED)
    cloud.ssh(
        "root", address, f"curl -sf {cloud.running.hub_url}/api/models/pulumi-vllm/mistral-small-4-tiny"
    )

    os.kill(cloud.running.pid, signal.SIGKILL)
    while settings.is_held(settings.Files(cloud.state_dir).lock):
        time.sleep(0.02)
    assert cloud.ssh("root", address, "cat /mnt/file") == "data"
    cloud.up()
    assert cloud.wait(machine) == address
    assert cloud.ssh("root", address, BOOTED) == boot

    cloud.ssh("root", address, "umount /mnt")
    cloud.call("POST", f"volumes/{disk}/detach", {"deploymentId": machine})
    other = cloud.create("data-crunch", "two", volumeIds=[disk])
    there = cloud.wait(other)
    assert cloud.ssh("root", there, "mount /dev/vdb /mnt && cat /mnt/file") == "data"
    control.request_control(cloud.running, "advance", "POST", {"seconds": 1200})
    cloud.call("DELETE", f"deployments/{machine}")
    control.request_control(cloud.running, f"reclaim/{other}", "POST", {})
    cloud.wait(other, "terminated-provider")
    cloud.call("POST", f"volumes/{disk}/detach", {"deploymentId": other})
    assert cloud.call("DELETE", f"volumes/{disk}") == {"success": True}


def test_attaching_a_share_restarts_a_gpu_machine(cloud):
    machine = cloud.create("spheron-es", "gpu", "h200", 2)
    share = cloud.volume("spheron-es", "US Central 1", "ms4-weights")
    address = cloud.wait(machine)
    assert cloud.ssh("ubuntu", address, "nvidia-smi -L").count("H200") == 2
    boots = int(cloud.ssh("ubuntu", address, "journalctl --list-boots -q --no-pager | wc -l"))
    cloud.call("POST", f"volumes/{share}/attach", {"deploymentId": machine})
    mount = "mountpoint -q /mnt || mount -t virtiofs ms4weights /mnt"
    cloud.until("ubuntu", address, f"{mount}; echo data > /mnt/file")
    assert int(cloud.ssh("ubuntu", address, "journalctl --list-boots -q --no-pager | wc -l")) == boots + 1
    assert (
        cloud.ssh("ubuntu", address, '/opt/vllm/bin/python -c "import vllm; print(vllm.__version__)"')
        == "0.33.0"
    )

    control.request_control(cloud.running, f"pause/{machine}", "POST", {})
    assert cloud.ssh("ubuntu", address, "true", check=False) is None
    assert cloud.call("GET", f"deployments/{machine}")["status"] == "running"
    control.request_control(cloud.running, f"unpause/{machine}", "POST", {})
    cloud.until("ubuntu", address, "true")

    control.down(cloud.state_dir)
    assert _traces(cloud.state_dir) == []
    cloud.up()
    assert cloud.call("GET", f"deployments/{machine}")["status"] == "terminated"
    assert cloud.call("GET", f"volumes/{share}")["status"] == "available"
    other = cloud.create("spheron-es", "again")
    there = cloud.wait(other)
    cloud.call("POST", f"volumes/{share}/attach", {"deploymentId": other})
    assert cloud.until("ubuntu", there, f"{mount}; cat /mnt/file") == "data"
