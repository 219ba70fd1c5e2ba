"""The kit can write every file of a stack's host for a machine that has a GPU and no network."""

import gpu_kit
import pytest

ROOT = gpu_kit.FOLDER.parents[1]


@pytest.mark.parametrize("stack", ["spheron-h100-2x-fp8", "spheron-h200-1x-nvfp4"])
def test_the_files_of_a_host_are_written_with_every_secret(stack, tmp_path):
    kit = gpu_kit.load("host_files")
    kit.write(tmp_path, kit.launch.block(ROOT / f"stacks/Pulumi.{stack}.yaml", []))
    written = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert {"vllm.service", "haproxy.cfg", *kit.SUBSTITUTES} <= {path.name for path in written}
    assert not [path for path in written if "@@" in path.read_text()]
    units = tmp_path / "root/etc/systemd/system"
    started = gpu_kit.load("host_run").UNITS
    assert not [unit for unit in started if not (units / unit).exists()]
