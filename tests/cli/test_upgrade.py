"""`pulumi-vllm upgrade`: what another vLLM version changes for a stack."""

import json
import pathlib

import pytest
import yaml
from pulumi_vllm.cli import main
from pulumi_vllm.plan import catalogue

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
    assert "usd_per_million_output_tokens: 0.216 -> unknown, 256 streams, 512 tokens in and 256 out" in shown
    assert "measured: with these flags -> never" in shown
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
    assert main(["upgrade", "spheron-h200-2x-fp8", "--to", "0.33.0"]) == 0
    assert capsys.readouterr().out == "The stack has vLLM 0.33.0 already.\n"


def test_each_gpu_of_a_list_is_compared(capsys, tmp_path):
    """The default of an H200 was named as the version of a stack whose H100 has an older one."""
    machine = {"cloud": "spheron", "gpu": ["H200", "H100"], "count": 1, "max_usd_per_hour": 9}
    settings = {"machine": machine, "precision": "nvfp4", "context": "32Ki", "concurrency": 256, "engine": {}}
    path = stack_with(tmp_path, "spheron-h200-1x-fp8", **settings)
    assert main(["upgrade", str(path), "--to", "0.33.0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("1x H200:\nThe stack has vLLM 0.33.0 already.\n1x H100:\nvLLM 0.26.0 -> 0.33.0\n")
    assert f"set engine.version to 0.33.0 in {path}" in shown
    _, found = as_json(capsys, path, "0.33.0")
    (other,) = found["others"]
    assert (found["machine"], found["from"]) == ("1x H200", "0.33.0")
    assert (other["machine"], other["from"], other["evidence_lost"]) == ("1x H100", "0.26.0", True)


def test_the_way_back_is_no_upgrade(capsys):
    assert main(["upgrade", "spheron-h200-1x-fp8", "--to", "0.26.0"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("For vLLM 0.26.0, set engine.version to 0.26.0 in ")
    )


def test_a_finding_with_other_numbers_is_not_new(capsys, tmp_path):
    """The KV cache holds 382 tokens of each request with 0.26.0 and 397 with 0.33.0, too few in both."""
    settings = {"model": "llama-3.3-70b", "context": "32Ki", "engine": {"version": "0.26.0"}}
    path = stack_with(tmp_path, "spheron-h200-1x-fp8", **settings)
    _, found = as_json(capsys, path, "0.33.0")
    assert (
        found["kv_cache_tokens"]["before"] != found["kv_cache_tokens"]["after"],
        found["new_findings"],
    ) == (True, [])


def test_a_finding_of_the_new_version_only_is_named(capsys, tmp_path):
    """On one H100 the cache of 0.33.0 holds 222,309 tokens, of 0.26.0 271,555."""
    path = stack_with(tmp_path, "spheron-h100-1x-nvfp4", concurrency=300, engine={"version": "0.26.0"})
    _, found = as_json(capsys, path, "0.33.0")
    assert [one.partition(":")[0] for one in found["new_findings"]] == ["warning (too-many-sequences)"]


GPU_STACKS = sorted(path.name[7:-5] for path in STACKS.glob("Pulumi.spheron-*.yaml"))


@pytest.mark.parametrize("stack", GPU_STACKS)
def test_rates_are_compared_at_streams_that_were_measured_with_both(capsys, stack):
    version = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]["pulumi-vllm:server"]
    other = "0.26.0" if version.get("engine") else "0.33.0"
    assert main(["upgrade", stack, "--to", other]) == 0
    shown = capsys.readouterr().out
    _, found = as_json(capsys, stack, other)
    rates = found["output_tokens_per_s"]
    known = catalogue.load().measured
    for side, engine in (("before", found["from"]), ("after", found["to"])):
        if rates[side] is None:
            continue
        streams = int(found["load"].split()[0])
        assert any(
            one.engine == engine and one.tokens_per_s.get(streams) == pytest.approx(rates[side])
            for one in known
        )
        assert f", {found['load']}" in shown
    if None not in rates.values():
        dollars = found["usd_per_million_output_tokens"]
        assert dollars["after"] / dollars["before"] == pytest.approx(rates["before"] / rates["after"])


def test_a_rate_between_two_measured_ones_is_called_interpolated(capsys, tmp_path):
    path = stack_with(tmp_path, "spheron-h200-1x-fp8", concurrency=100)
    assert main(["upgrade", str(path), "--to", "0.26.0"]) == 0
    line = ", 100 streams, 512 tokens in and 256 out, interpolated\n"
    assert capsys.readouterr().out.count(line) == 2


def test_a_load_that_was_measured_with_one_version_only_is_named(capsys):
    assert main(["upgrade", "spheron-h200-2x-fp8", "--to", "0.26.0"]) == 0
    shown = capsys.readouterr().out
    assert "usd_per_million_output_tokens: 0.248 -> 0.307 (+23.6%), 256 streams" in shown
    assert "With vLLM 0.33.0 only: 10,953 output tokens/s at 512 streams" in shown
    assert "$0.201 per million" in shown
    assert main(["upgrade", "spheron-h200-1x-fp8", "--to", "0.26.0"]) == 0
    assert " only: " not in capsys.readouterr().out


def test_another_number_of_engines_is_a_change(capsys, tmp_path):
    """Two engines were measured with vLLM 0.33.0 only, so that plan chooses one with 0.26.0."""
    path = stack_with(tmp_path, "spheron-h200-2x-fp8-batch")
    document = yaml.safe_load(path.read_text())
    del document["config"]["pulumi-vllm:server"]["machine"]["engines"]
    path.write_text(yaml.safe_dump(document))
    code, found = as_json(capsys, path, "0.26.0")
    assert (code, found["engines"]) == (0, {"before": 2, "after": 1})
    assert main(["upgrade", str(path), "--to", "0.26.0"]) == 0
    shown = capsys.readouterr().out
    assert "changed: engines on the machine 2 -> 1\n" in shown
    assert "With vLLM 0.33.0 only: 17,655 output tokens/s at 1024 streams" in shown


def test_arguments_that_one_version_lacks_are_named_or_counted(capsys):
    assert main(["upgrade", "spheron-h200-1x-fp8", "--to", "0.26.0"]) == 0
    shown = capsys.readouterr().out
    assert "Arguments that only vLLM 0.33.0 has: 51 (--json names them)" in shown
    assert "Arguments that only vLLM 0.26.0 has: calculate-kv-scales, " in shown


def test_several_engines_restart_at_once(capsys):
    assert main(["upgrade", "spheron-h200-2x-fp8-batch", "--to", "0.26.0"]) == 0
    assert "restarts all 2 engines" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["0.34.0", "0.32.0-cpu"])
def test_a_version_for_another_machine_is_a_usage_error(capsys, version):
    assert main(["upgrade", "spheron-h200-2x-fp8", "--to", version]) == 64
    message = f"--to {version}: the catalogue has no such vLLM; for this machine, write 0.26.0 or 0.33.0"
    assert message in capsys.readouterr().err


def test_without_a_version_they_are_named(capsys):
    assert main(["upgrade", "spheron-h200-2x-fp8"]) == 64
    assert "--to: missing; for this machine, write 0.26.0 or 0.33.0" in capsys.readouterr().err
