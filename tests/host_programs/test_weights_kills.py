"""The weights program when it is killed, started twice, or out of disk space."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Program, SmallHub

    Found = Callable[[dict[str, Any]], dict[str, bytes]]


def test_two_runs_do_not_overwrite_each_other(
    weights: Program, hub: SmallHub, config: dict[str, Any]
) -> None:
    hub.piece_s = 5.0  # the first run waits until the second has ended
    with subprocess.Popen(weights.command(**config), stdout=subprocess.DEVNULL) as first:
        wait_for(lambda: hub.sent > 0)
        second = weights(**config)
        hub.piece_s = 0.0
        assert first.wait(timeout=20) == 0
    assert second.returncode == 1
    assert "another download" in second.stderr


def fill(place: Path) -> None:
    with place.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


def wait_for(fact: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill_after(weights: Program, hub: SmallHub, config: dict[str, Any], count: int) -> int:
    """Start a run, kill it once the hub has sent `count` bytes more; 0 if it ended before."""
    goal = hub.sent + count
    with subprocess.Popen(
        weights.command(**config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while run.poll() is None and hub.sent < goal:
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        return run.wait(timeout=10)


def test_a_kill_costs_only_the_chunks_in_flight(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    hub.piece_s = 0.01
    assert kill_after(weights, hub, config, 300_000) == -signal.SIGKILL
    time.sleep(0.05)  # the hub still sends into the closed socket
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept
    downloads_again_at_most(hub, kills=1, chunk=config["chunk_bytes"], parallel=config["parallel"])


def downloads_again_at_most(hub: SmallHub, *, kills: int, chunk: int, parallel: int) -> None:
    """By the hub's own count, a kill costs each file at most its chunks in flight: 64 MiB with the unit's settings."""
    for path, data in hub.kept.items():
        again = hub.sent_of[path] - len(data)
        assert again <= kills * min(64 << 20, parallel * chunk), path


def test_the_unit_keeps_at_most_64_mib_of_a_file_in_flight(
    weights: Program, small_hub: Callable[[dict[str, bytes]], SmallHub], config: dict[str, Any], found: Found
) -> None:
    """16 MiB chunks, 16 connections, one large file: four connections work on it. Killed with an empty journal."""
    hub = small_hub({"consolidated.safetensors": random.Random(5).randbytes(100 << 20)})
    # 30 s, because a hub in this busy process may be slow; the time limit is not what is tested.
    config |= {"endpoint": hub.url, "chunk_bytes": 16 << 20, "parallel": 16, "timeout_s": 30}
    hub.piece_s = 0.0005
    assert kill_after(weights, hub, config, 40 << 20) == -signal.SIGKILL
    assert weights(**config).returncode == 0
    assert found(config) == hub.kept
    assert hub.sent_of["consolidated.safetensors"] - (100 << 20) <= 64 << 20


@pytest.mark.ci
def test_ten_kills_at_random_moments(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found
) -> None:
    chance = random.Random(os.environ.get("PULUMI_VLLM_SEED", "7"))
    hub.files.update({f"consolidated-1{n}.safetensors": chance.randbytes(3_000_000) for n in range(4)})
    wanted = hub.kept
    hub.piece_s = 0.002
    total = sum(map(len, wanted.values()))
    for _ in range(10):
        code = kill_after(weights, hub, config, chance.randrange(total // 8))
        assert code == -signal.SIGKILL
        whole = found(config)
        assert all(data == wanted[path] for path, data in whole.items() if not path.startswith(".parts/"))
    assert weights(**config).returncode == 0
    assert found(config) == wanted
    downloads_again_at_most(hub, kills=10, chunk=config["chunk_bytes"], parallel=config["parallel"])


@pytest.mark.ci
def test_a_disk_that_fills_up_is_reported_and_the_next_run_resumes(
    weights: Program, hub: SmallHub, config: dict[str, Any], found: Found, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(disk)]
    subprocess.run(mount, check=True)
    try:
        config["directory"] = str(disk / "small" / ("0" * 40))
        hub.piece_s = 0.02
        filler = disk / "filler"
        with subprocess.Popen(weights.command(**config), stderr=subprocess.PIPE, text=True) as run:
            wait_for(lambda: hub.sent > 100_000)
            with pytest.raises(OSError, match="No space"):
                fill(filler)
            _, errors = run.communicate(timeout=20)
        assert run.returncode == 4
        assert "the disk is full; grow the volume" in errors
        filler.unlink()
        assert weights(**config).returncode == 0
        assert found(config) == hub.kept
    finally:
        subprocess.run(["umount", str(disk)], check=True)
