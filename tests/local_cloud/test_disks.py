"""Disks without machines: image files, loop devices, and the file system of a share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from pulumi_vllm_local.machines.disks import Disks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ci


@pytest.mark.parametrize("size_gb", [1, 30])
def test_a_share_grows_by_the_next_start_and_keeps_its_files(tmp_path: Path, size_gb: int) -> None:
    disks = Disks(tmp_path)
    disks.create("one", size_gb, "share")
    disks.claim("one", "machine")
    try:
        (bind,) = disks.binds("machine")
        share = tmp_path / "shares" / "one"
        assert str(share) in bind
        (share / "kept").write_text("as it was")
        room = os.statvfs(share)
        before = room.f_blocks * room.f_frsize
        if not disks.grow(
            "one", size_gb + 1
        ):  # this root may not grow a mounted file system, so the next start does
            disks.binds("machine")
        room = os.statvfs(share)
        assert room.f_blocks * room.f_frsize - before > 0.9e9
        assert (share / "kept").read_text() == "as it was"
        found = disks.get("one")
        assert found is not None
        assert found.size_gb == size_gb + 1
    finally:
        disks.disclaim("one")
        disks.delete("one")


def test_a_block_disk_grows_with_its_device(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    disk = disks.create("one", 1, "block")
    try:
        loop = disks.loop(disk)
        disks.grow("one", 2)
        with open(loop, "rb") as device:  # noqa: PTH123 - seek finds the size of a device
            assert device.seek(0, os.SEEK_END) == 2 * 10**9 // 4096 * 4096
    finally:
        disks.disclaim("one")
        disks.delete("one")
