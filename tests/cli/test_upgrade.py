"""`pulumi-vllm upgrade`: what another vLLM version changes for a stack."""

import json
import pathlib

import pytest
import yaml
from pulumi_vllm.cli import main

STACKS = pathlib.Path(__file__).parents[2] / "stacks"


def as_json(capsys, stack, version):
    code = main(["upgrade", str(stack), "--to", version, "--json"])
    return code, json.loads(capsys.readouterr().out)


def stack_with(tmp_path, name, **changed):
    document = yaml.safe_load((STACKS / f"Pulumi.{name}.yaml").read_text())
    document["config"]["pulumi-vllm:server"] |= changed
    path = tmp_path / f"Pulumi.{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_an_upgrade_of_one_h200_gains_memory_and_keeps_its_evidence(capsys, tmp_path):
    path = stack_with(tmp_path, "spheron-h200-1x-fp8", engine={"version": "0.26.0"})
    code, found = as_json(capsys, path, "0.33.0")
    assert code == 0
    assert (found["from"], found["to"]) == ("0.26.0", "0.33.0")
    assert {"name": "--gpu-memory-utilization", "before": "0.94", "after": "0.95"} in found["flags"]
    assert found["environment"] == [
        {"name": "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "before": None, "after": "0"}
    ]
    assert found["kv_cache_tokens"]["after"] > 1.15 * found["kv_cache_tokens"]["before"]
    assert (found["measured"]["after"], found["evidence_lost"]) == ("yes", False)
    assert "max-num-partial-prefills" in found["arguments_gone"]
    assert "max-num-queued-reqs" in found["arguments_new"]


def test_evidence_that_is_lost_is_named(capsys):
    assert main(["upgrade", "spheron-h100-2x-fp8", "--to", "0.33.0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("vLLM 0.26.0 -> 0.33.0\n")
    assert "Evidence is lost: " in shown
    assert "usd_per_million_output_tokens: 0.216 -> unknown" in shown
    assert "set engine.version to 0.33.0 in stacks/Pulumi.spheron-h100-2x-fp8.yaml" in shown


def test_a_flag_that_the_new_version_refuses_is_named(capsys, tmp_path):
    engine = {"version": "0.26.0", "flags": {"enable-bf16x3-router-gemm": True}}
    path = stack_with(tmp_path, "spheron-h200-1x-fp8", engine=engine)
    code, found = as_json(capsys, path, "0.33.0")
    assert code == 1
    assert any("enable-bf16x3-router-gemm" in message for message in found["refused"])
    assert main(["upgrade", str(path), "--to", "0.33.0"]) == 1
    assert "refused with vLLM 0.33.0: " in capsys.readouterr().err


def test_the_same_version_changes_nothing(capsys):
    code, found = as_json(capsys, "spheron-h200-2x-fp8", "0.33.0")
    assert (code, found["flags"], found["environment"], found["evidence_lost"]) == (0, [], [], False)


@pytest.mark.parametrize("version", ["0.34.0", "0.32.0-cpu"])
def test_a_version_for_another_machine_is_a_usage_error(capsys, version):
    assert main(["upgrade", "spheron-h200-2x-fp8", "--to", version]) == 64
    assert f"--to {version}: the catalogue has no such vLLM for this machine" in capsys.readouterr().err
