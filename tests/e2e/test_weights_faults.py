"""Downloads on a host that are killed, rebooted, reclaimed, corrupted or out of space; the hub counts its bytes."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
from collections import Counter
from urllib.parse import urlsplit

import pytest
import requests
from harness import refused, wait_for
from pulumi_vllm_local.hub import content, model_hub
from pulumi_vllm_local.tiny_model import model_files
from pulumi_vllm_local.web import serving

SEED = int(os.environ.get("WEIGHTS_SEED", "20261126"))
IN_FLIGHT = 64 << 20  # per file: the most that the program may download twice
MOMENTS = 10
SHARDS_MIB = (100, 90, 80, 70)
RATE = 8_000_000  # bytes per second for each body: a chunk takes two seconds
MODEL = "/models/weights/*/*/*"  # owner, name, revision


class LargeHub:
    """A hub with the tiny model and additional shards that nothing reads."""

    def __init__(self, url: str, repository: content.Repository):
        self.url, self.repository = url, repository

    def fault(self, **values: object) -> None:
        params = {name: str(value) for name, value in values.items()}
        requests.post(f"{self.url}/_fault", params=params, timeout=30).raise_for_status()

    def forget(self) -> None:
        requests.delete(f"{self.url}/_log", timeout=30).raise_for_status()

    @property
    def sent(self) -> Counter[str]:
        """Return the bytes per file since the log was cleared."""
        total: Counter[str] = Counter()
        for row in requests.get(f"{self.url}/_log", timeout=30).json():
            if "/resolve/" in row["path"]:
                total[row["path"].split(f"{self.repository.revision}/")[1]] += row["sent"]
        return total

    def again(self, kills: int) -> Counter[str]:
        """Return the bytes of each file beyond its size, after checking the limit."""
        sizes = {file.path: file.size for file in self.repository.files}
        found = Counter({path: sent - sizes[path] for path, sent in self.sent.items()})
        assert all(bytes_ <= kills * IN_FLIGHT for bytes_ in found.values()), found
        return found


@pytest.fixture
def large(clouds, tmp_path):
    cloud = clouds("fake")
    pinned = model_files.pinned()
    folder = tmp_path / "hub"
    shutil.copytree(model_files.ensure(tmp_path / "tiny"), folder)
    for number, mib in enumerate(SHARDS_MIB, 1):
        content._noise(folder / f"consolidated-9000{number}.safetensors", mib << 20, "a test")
    repository = content.Repository.read(model_files.REPOSITORY, folder, pinned["revision"])
    gateway = urlsplit(cloud.environment["PULUMI_VLLM_LOCAL_HUB"]).hostname
    with serving(model_hub.application([repository]), host=gateway, dated=False) as url:
        yield LargeHub(url, repository)


@pytest.fixture
def project(projects, large):
    return projects("fake", weights={"endpoint": large.url})


def whole_files(project, large) -> int:
    """Check that every complete file is correct; return their number."""
    listed = project.on_host(
        f"cd {MODEL} && find . -type f ! -path './.*' -exec sha256sum {{}} +", check=False
    )
    wanted = {}
    for file in large.repository.files:
        wanted[file.path] = hashlib.sha256((large.repository.folder / file.path).read_bytes()).hexdigest()
    found = dict(reversed(line.split(maxsplit=1)) for line in listed.splitlines())
    for path, digest in found.items():
        assert wanted[path.removeprefix("./")] == digest, f"{path} is torn"
    return len(found)


def empty(project) -> None:
    """Stop downloads and remove the model."""
    project.on_host(f"""
        systemctl stop vllm.service vllm-weights.service
        systemctl reset-failed vllm.service vllm-weights.service
        rm -rf {MODEL}""")


def sent_more_than(large, count: int):
    return lambda: sum(large.sent.values()) > count


@pytest.mark.all
def test_ten_kills_of_the_client_cost_at_most_the_chunks_in_flight(project, large):
    chance = random.Random(SEED)
    project.up()
    total = sum(file.size for file in large.repository.files)
    lost = []
    for _ in range(MOMENTS):
        empty(project)
        large.forget()
        large.fault(rate=RATE)
        project.on_host("systemctl restart --no-block vllm-weights.service")
        wait_for(sent_more_than(large, chance.randrange(total)), 120, "bytes")
        project.on_host("systemctl kill -s KILL vllm-weights.service; systemctl stop vllm-weights.service")
        assert whole_files(project, large) <= len(large.repository.files)
        large.fault(rate="")
        project.on_host("systemctl reset-failed vllm-weights.service; systemctl restart vllm-weights.service")
        assert whole_files(project, large) == len(large.repository.files)
        lost.append(sum(large.again(kills=1).values()))
    print("MB sent again:", [round(bytes_ / 1e6) for bytes_ in lost])  # noqa: T201


@contextlib.contextmanager
def downloading(project, large, count: int):
    """Run `up` until the hub has sent some bytes, yield, then wait for its end."""
    empty(project)
    large.forget()
    large.fault(rate=RATE)
    running = project.start("up", "--yes", "--skip-preview")
    try:
        wait_for(sent_more_than(large, count), 180, "bytes")
        yield
        large.fault(rate="")
        out, _ = running.communicate(timeout=600)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    project.result = (running.returncode, out)


@pytest.mark.all
@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_up_continues_after_a_restart_of_the_machine(project, large, how):
    project.up()
    with downloading(project, large, 150 << 20):
        command = "systemctl reboot" if how == "reboot" else "systemctl reboot --force --force"
        # Compare the start of its init, because an ssh that connects during the restart just waits.
        began = "cut -d ' ' -f 22 /proc/1/stat"
        before = project.on_host(began)
        project.on_host(f"systemd-run --on-active=0.1 {command}")
        wait_for(lambda: project.on_host(began, check=False) not in {before, ""}, 120, "restart")
    code, out = project.result
    assert code == 0, out
    assert "the host was restarted; vllm-weights.service continues" in out
    assert whole_files(project, large) == len(large.repository.files)
    print("MB sent again:", round(sum(large.again(kills=1).values()) / 1e6))  # noqa: T201


@pytest.mark.all
def test_a_machine_reclaimed_in_a_download_leaves_its_files_to_the_next(project, large):
    project.up()
    machine = project.machine_id()
    with downloading(project, large, 150 << 20):
        project.cloud.api(f"/_sim/reclaim/{machine}", "POST")
        wait_for(lambda: machine not in {one["id"] for one in project.cloud.machines()}, 120, "reclaim")
    code, out = project.result
    assert code != 0
    assert "which continues with what is on the volume" in out
    project.up()
    assert project.machine_id() != machine
    assert whole_files(project, large) == len(large.repository.files)
    print("MB sent again:", round(sum(large.again(kills=1).values()) / 1e6))  # noqa: T201


@pytest.mark.all
def test_a_corrupt_file_is_found_before_vllm_starts_and_fetched_again(project, large):
    shard, sizes = "consolidated-90002.safetensors", {file.path: file.size for file in large.repository.files}
    large.fault(corrupt=shard)
    refused(project, f"{shard}: sha256 wrong 3 times; check disk, memory and the hub")
    assert project.on_host("systemctl show -P ActiveState vllm.service", check=False).strip() != "active"
    assert large.sent[shard] == 3 * sizes[shard]
    assert {path: sent for path, sent in large.sent.items() if path != shard} == {
        path: size for path, size in sizes.items() if path != shard
    }
    large.fault(corrupt="")
    large.forget()
    project.up()
    assert large.sent == {shard: sizes[shard]}

    large.forget()
    project.on_host(f"printf x | dd of=$(echo {MODEL}/{shard}) bs=1 seek=50000000 conv=notrunc status=none")
    shown = project.up()
    assert f"missing or changed since they were verified: {shard}" in shown
    assert large.sent == {shard: sizes[shard]}
    assert whole_files(project, large) == len(sizes)


@pytest.mark.all
def test_a_full_volume_is_reported_and_growing_it_is_enough(project, large):
    project.up()
    with downloading(project, large, 150 << 20):
        project.on_host("""
            fallocate -l $(($(df --output=avail -B1 /models | tail -n 1) - 100000000)) /models/filler
            cat /dev/zero > /models/rest || true""")
    code, out = project.result
    assert code != 0
    assert "the disk is full; grow the volume (storage)" in out
    machine = project.machine_id()

    project.write(project.block | {"storage": "3GB"})
    done = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert done.returncode != 0
    assert "does not support changing a volume" in done.stdout
    assert "keeps its 2 GB and its content" in done.stdout
    project.cloud.api("/_sim/profile/spheron-es", "POST", {"volume_grows": True})
    try:
        project.up()
    finally:
        project.cloud.api("/_sim/profile/spheron-es", "POST", {"volume_grows": False})
    assert project.machine_id() == machine
    assert whole_files(project, large) == len(large.repository.files)
    large.again(kills=1)
    assert set(project.changes()) == {"same"}
