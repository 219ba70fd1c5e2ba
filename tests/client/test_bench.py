"""`pulumi-vllm bench` as a user runs it, against the fake engine."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.client import bench_results, load_generator
from pulumi_vllm.plan import Deployment, catalogue, explain, planner
from pulumi_vllm.plan.engine_arguments import EngineArguments

from tests.plan.blocks import STACKS, block_of

pytestmark = pytest.mark.usefixtures("key")
# The figures of `vllm bench serve` that the kit in lab/gpu keeps.
NAMES = {
    "duration", "completed", "failed", "request_throughput", "output_throughput", "total_token_throughput",
    "mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "p99_tpot_ms",
    "median_itl_ms", "p99_itl_ms",
}  # fmt: skip


def bench(capsys, out, *words):
    code = main(["bench", "--json", "--out", str(out), *words])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_the_report_matches_the_timing_of_the_engine(start, tmp_path, capsys):
    """The engine takes 20 ms for each token, the first included."""
    slow = start(token_ms=20)
    words = ("--url", slow.url, "--levels", "4,1", "--input", "300", "--output", "10")
    code, result, err = bench(capsys, tmp_path, *words)
    assert code == 0
    assert "4 streams, 12 requests" in err
    rows = {row["concurrency"]: row for row in result["rows"]}
    assert list(rows) == [1, 4]
    for streams, row in rows.items():
        assert row.keys() >= NAMES
        assert (row["completed"], row["failed"]) == (max(4, 3 * streams), 0)
        # Never faster than the engine. How much slower depends on the machine.
        assert row["median_ttft_ms"] >= 20
        assert row["mean_ttft_ms"] + 9 * row["mean_tpot_ms"] >= 199.9
        assert row["output_throughput"] <= streams / 0.020
        # Two counts of the same tokens: from the duration of the level, and from the requests.
        assert row["output_throughput"] * row["duration"] == pytest.approx(row["completed"] * 10, rel=1e-3)
        assert row["total_token_throughput"] == pytest.approx(row["output_throughput"] * 310 / 10, rel=1e-3)


def test_results_are_saved_and_compared_with_the_last_run(engine, tmp_path, capsys):
    words = ("--url", engine.url, "--levels", "1,2", "--input", "16", "--output", "8")
    first = bench(capsys, tmp_path, *words)[1]
    assert first["compared"] == {}
    (saved,) = tmp_path.glob("127.0.0.1*/*.json")
    assert {**json.loads(saved.read_text()), "schema_version": 1} == first
    assert "sk-" not in saved.read_text()
    saved.rename(
        saved.with_name("20000101T000000Z.json")
    )  # two runs within a second would have the same name
    second = bench(capsys, tmp_path, *words)[1]
    ((name, levels),) = second["compared"].items()
    assert name.startswith("last run, 20")
    ratio = levels["2"]["output_throughput"]
    assert ratio == pytest.approx(
        second["rows"][1]["output_throughput"] / first["rows"][1]["output_throughput"], abs=1e-3
    )
    assert second["seed"] != first["seed"], "repeated prompts would be answered from the prefix cache"
    other = bench(capsys, tmp_path, "--url", engine.url, "--levels", "1", "--input", "17", "--output", "8")[1]
    assert other["compared"] == {}, "runs with other lengths are not compared"
    assert main(["bench", "--out", str(tmp_path), *words]) == 0
    shown = capsys.readouterr().out
    assert "output tok/s" in shown
    assert "against last run" in shown


def test_an_interrupt_keeps_the_levels_that_are_complete(start, tmp_path):
    slow = start(token_ms=20)
    words = [
        "bench",
        "--url",
        slow.url,
        "--levels",
        "1,2",
        "--input",
        "8",
        "--output",
        "40",
        "--out",
        str(tmp_path),
    ]
    command = [sys.executable, "-u", "-m", "pulumi_vllm.cli", *words]
    # A shell may have started the tests with SIGINT ignored, and children inherit that.
    sigint = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **sigint
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "2 streams, 6 requests" in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert not [line for line in lines if "Traceback" in line]
    (saved,) = tmp_path.glob("127.0.0.1*/*.json")
    assert [row["concurrency"] for row in json.loads(saved.read_text())["rows"]] == [1]


def test_evidence_with_the_same_or_the_most_similar_flags_is_found():
    (evidence, *_) = [one for one in catalogue.load().measured if one.flags and one.gpu == "H200"]
    flags = list(EngineArguments.of(evidence.flags).command_line())
    plan = {
        "machine": f"{evidence.count}x {evidence.gpu}",
        "model": evidence.model,
        "precision": evidence.precision,
        "engine": evidence.engine,
        "flags": flags,
    }
    named = f"measured, {evidence.date}"
    assert bench_results.matching_evidence({"plan": plan}) == (evidence, named)
    eager = {"plan": plan | {"flags": [*flags, "--enforce-eager"]}}
    assert bench_results.matching_evidence(eager) == (
        evidence,
        f"{named} with other flags (without --enforce-eager)",
    )
    for other in ({"machine": "8x H200"}, {"flags": []}, {"engine": "0.1.0"}, dict.fromkeys(plan)):
        assert bench_results.matching_evidence({"plan": plan | other}) == (None, "")
    ours = [{**row, "output_throughput": row["output_throughput"] / 2} for row in evidence.load]
    compared = bench_results.compare(ours, evidence.load)
    assert {ratio["output_throughput"] for ratio in compared.values()} == {0.5}
    assert {ratio["median_ttft_ms"] for ratio in compared.values()} == {1.0}
    assert set(compared) == {row["concurrency"] for row in evidence.load}


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_the_evidence_of_a_stack_is_that_of_its_plan(stack):
    """`plan` gave the KV cache's size, so that `bench` named the run of just these flags one "with other flags"."""
    decided = planner.plan(Deployment.parse(block_of(stack)))
    run, title = bench_results.matching_evidence({"plan": explain.summary(decided)})
    assert run == (decided.measured_run if decided.measured_run and decided.measured_run.load else None)
    assert (run is not None and " with other flags" not in title) == (decided.measured == "yes")


def test_prompts_have_the_right_length_and_are_all_different():
    load = load_generator.Load(input_tokens=512, vocabulary=131072, seed=7)
    bodies = [json.loads(body) for body in load.bodies("m", 30, 8, 256)]
    prompts = {tuple(body["prompt"]) for body in bodies}
    assert {len(prompt) for prompt in prompts} == {512}
    assert len(prompts) == len(bodies)
    assert all(1000 <= token < 131072 for prompt in prompts for token in prompt)
    assert not prompts & {tuple(json.loads(body)["prompt"]) for body in load.bodies("m", 30, 4, 256)}
    assert {(body["max_tokens"], body["ignore_eos"]) for body in bodies} == {(256, True)}


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("percent", [0, 37, 50, 99, 100])
def test_percentiles_are_numpys(count, percent):
    import numpy as np

    values = [float((index * 37) % 101) for index in range(count)]
    assert load_generator.percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_a_folder_that_cannot_be_written(engine, tmp_path, capsys):
    (tmp_path / "file").touch()
    code, _, err = bench(
        capsys, tmp_path / "file", "--url", engine.url, "--levels", "1", "--input", "8", "--output", "2"
    )
    assert code == 1
    assert "give --out FOLDER" in err


def test_default_folder_is_the_projects(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--url", engine.url, "--levels", "1", "--input", "8", "--output", "2"]) == 0
    assert list(Path(".pulumi-vllm/bench").glob("127.0.0.1*/*.json"))
