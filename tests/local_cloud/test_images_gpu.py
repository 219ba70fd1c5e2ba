"""The imitated nvidia-smi prints what the real one printed."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from pulumi_vllm_local.images import image_cache

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = image_cache.RECIPES / "gpu" / "nvidia-smi"


def nvidia_smi(gpu: str, count: int, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    data = tmp_path / "data"
    if not data.exists():
        image_cache.unpack_captured(gpu, data)
        (data / "count").write_text(f"{count}\n")
    return subprocess.run(
        [sys.executable, "-S", str(PROGRAM), *words],
        env={"LC_GPU_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("gpu", ["h200", "h100"])
def test_two_gpus_match_the_capture(gpu: str, tmp_path: Path) -> None:
    captured = tmp_path / "captured"
    image_cache.unpack_captured(gpu, captured)
    assert nvidia_smi(gpu, 2, tmp_path, "topo", "-m").stdout == (captured / "topo.txt").read_text()
    assert (
        nvidia_smi(gpu, 2, tmp_path).stdout.splitlines()[1:]
        == (captured / "nvidia-smi.txt").read_text().splitlines()[1:]
    )
    printed = [
        line
        for line in nvidia_smi(gpu, 2, tmp_path, "-q", "-x").stdout.splitlines()
        if "<timestamp>" not in line
    ]
    real = [
        line for line in (captured / "nvidia-smi-q.xml").read_text().splitlines() if "<timestamp>" not in line
    ]
    assert printed == real


def test_the_long_output_matches_the_capture(tmp_path: Path) -> None:
    printed = nvidia_smi("h200", 2, tmp_path, "-q").stdout.splitlines()
    captured = tmp_path / "captured"
    image_cache.unpack_captured("h200", captured)
    real = (captured / "nvidia-smi-q.txt").read_text().splitlines()
    assert [line for line in printed if "Timestamp" not in line] == [
        line for line in real if "Timestamp" not in line
    ]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_other_counts_have_distinct_gpus(count: int, tmp_path: Path) -> None:
    rows = nvidia_smi(
        "h200", count, tmp_path, "--query-gpu=index,uuid,pci.bus_id,serial", "--format=csv,noheader"
    ).stdout
    cells = [row.split(", ") for row in rows.splitlines()]
    assert [cell[0] for cell in cells] == [str(index) for index in range(count)]
    for column in range(4):
        assert len({cell[column] for cell in cells}) == count
    root = ET.fromstring(nvidia_smi("h200", count, tmp_path, "-q", "-x").stdout)
    assert root.findtext("attached_gpus") == str(count)
    assert len(root.findall("gpu")) == count
    assert nvidia_smi("h200", count, tmp_path).stdout.count("NVIDIA H200  ") == count


def test_query_layouts(tmp_path: Path) -> None:
    query = "--query-gpu=name,memory.total,driver_version"
    assert nvidia_smi("h200", 2, tmp_path, query, "--format=csv").stdout.splitlines() == [
        "name, memory.total [MiB], driver_version",
        *["NVIDIA H200, 143771 MiB, 580.159.04"] * 2,
    ]
    assert nvidia_smi("h200", 2, tmp_path, query, "--format=csv,noheader,nounits", "-i", "1").stdout == (
        "NVIDIA H200, 143771, 580.159.04\n"
    )


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    done = nvidia_smi("h100", 2, tmp_path, "--query-gpu=name,nonsense", "--format=csv")
    assert (done.returncode, done.stdout) == (2, 'Field "nonsense" is not a valid field to query.\n\n')
