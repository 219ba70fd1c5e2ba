"""How results of a card become evidence: which runs are kept, what a run that was cut off leaves, what `plan` reads."""

import gzip
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import gpu_kit
import pytest
from pulumi_vllm.plan import Deployment, catalogue, plan, reasons

ROOT = Path(__file__).parents[2]
MEASURED = "lab/evidence/0.26.0"
EVIDENCE = f"{MEASURED}/spheron-h200-1x-fp8-256ki.json"
COMPACT = gpu_kit.load("compact")
LOG = "lab/captured/h200-x1-batch/1x-fp8-256ki-0.94.log.gz"


@pytest.fixture
def kit(monkeypatch, tmp_path):
    """evidence.py of the kit, on a checkout that holds one evidence file."""
    module = gpu_kit.load("evidence")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / MEASURED).mkdir(parents=True)
    shutil.copy(ROOT / EVIDENCE, tmp_path / EVIDENCE)
    (tmp_path / "results").mkdir()
    return module


def cut_off(folder, name, **changed):
    """What measure.py has written, and the log as it was, when a machine is taken back after a level."""
    known = json.loads((ROOT / EVIDENCE).read_text())
    one = {
        name: known[name] for name in ("stack", "engine", "model", "precision", "gpu", "count", "environment")
    }
    one |= {"run": name, "argv": known["flags"], "started_argv": known["flags"], "changed_flags": {}}
    one |= {"machine": {"gpus": ["NVIDIA H200, 143771, 580.1, 700.00, 1, 1"], "packages": known["packages"]}}
    one |= {
        "date": "2026-12-01T10:00:00Z",
        "began": "2026-11-27T03:01:01",
        "outcome": "ready",
        "ready_s": 159.0,
    }
    one |= {"throughput": known["throughput"][:1], "other_host": None, **changed}
    (folder / f"{name}.json").write_text(json.dumps(one))
    (folder / f"{name}.log").write_bytes(gzip.decompress((ROOT / LOG).read_bytes()))


def written(kit, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["evidence.py", *map(str, words)])
    kit.main()
    return json.loads((kit.ROOT / EVIDENCE).read_text())


def test_a_run_that_was_cut_off_says_what_its_log_says(kit, monkeypatch):
    before, results = json.loads((ROOT / EVIDENCE).read_text()), kit.ROOT / "results"
    cut_off(results, "later")
    (results / "later.captured").mkdir()
    after = written(kit, monkeypatch, results, "later", "h200-x9", "fresh host")
    assert after["run"] == "later"
    assert after["reported"]["kv_tokens"] == 703_792
    assert after["phases_s"]["torch_compile"] == 45
    assert list(after["stop"]) == ["cut_off"]
    assert after["utilisation"] == []
    assert len(after["other_runs"]) == len(before["other_runs"]) + 1
    again = written(kit, monkeypatch, results, "later", "h200-x9", "fresh host")
    assert again == after


def test_a_run_is_known_by_its_log_and_not_by_its_name(kit, monkeypatch):
    before, results = json.loads((ROOT / EVIDENCE).read_text()), kit.ROOT / "results"
    cut_off(results, before["run"], date="2026-12-02T10:00:00Z")
    after = written(kit, monkeypatch, results, before["run"], "h200-x9", "fresh host")
    dates = [one["date"] for one in (after, *after["other_runs"]) if one["run"] == before["run"]]
    known = [one["date"] for one in (before, *before["other_runs"]) if one["run"] == before["run"]]
    assert dates == ["2026-12-02T10:00:00Z", *known]
    name = next(one["run"] for one in before["other_runs"] if one["run"] != before["run"])
    (results / f"{before['run']}.json").unlink()
    cut_off(results, name)
    for _ in range(2):
        added = written(kit, monkeypatch, "--add", results, kit.ROOT / EVIDENCE, "h200-x9")
        assert [one["run"] for one in added["other_runs"]].count(name) == 2


def test_a_first_run_with_changes_is_evidence_of_what_it_was_started_with(kit, monkeypatch):
    results = kit.ROOT / "results"
    cut_off(results, "changed", changed_flags={"max-num-batched-tokens": "6144"})
    after = written(kit, monkeypatch, results, "changed", "h200-x9", "fresh host")
    assert after["flags"][-2:] == ["--max-num-batched-tokens", "6144"]
    assert after["changed_flags"] == {}


@pytest.mark.parametrize("outcome", ["cut off", "ended", "not ready in time"])
def test_what_was_never_ready_is_no_first_run(kit, monkeypatch, outcome):
    results = kit.ROOT / "results"
    cut_off(results, "short", outcome=outcome, ready_s=None)
    with pytest.raises(SystemExit, match=f"short.json: {outcome}, never ready"):
        written(kit, monkeypatch, results, "short", "h200-x9", "fresh host")
    assert (kit.ROOT / EVIDENCE).read_text() == (ROOT / EVIDENCE).read_text()


def test_a_level_with_more_streams_than_places_is_no_rate_of_that_many():
    """With 1,024 streams on 512 places half of them wait: 13 s for the first token, and no price is for that."""
    path = ROOT / "lab/evidence/0.33.0/spheron-h200-2x-nvfp4-128ki-512.json"
    run = json.loads(path.read_text())
    assert {row["concurrency"] for row in run["throughput"]} >= {512, 1024}
    read = COMPACT.compact(run)
    assert max(read["tokens_per_s"]) == max(row["concurrency"] for row in read["load"]) == 512
    for one in catalogue.load().measured:
        if one.flags:
            assert max(one.tokens_per_s) <= int(one.flags["max-num-seqs"]) * one.engines


def test_a_level_without_an_answer_and_a_lost_engine_are_read():
    run = json.loads((ROOT / EVIDENCE).read_text())
    run["throughput"] += [{"level": "64", "skipped": "no time left"}, {"concurrency": 96, "input_tokens": 512,
                          "output_tokens": 256, "error": "ConnectionError"}]  # fmt: skip
    own = {
        "changed_flags": {},
        "changed_environment": {},
        "other_home_and_host_name": False,
        "ready_s": 150.0,
    }
    run["other_runs"] += [{**own, "run": "lost", "died_of": "CUDA out of memory. Tried to allocate 1 GiB"}]
    read = catalogue._measured(json.loads(json.dumps(COMPACT.compact(run))))
    assert sorted(read.tokens_per_s) == [1, 32, 128, 256]
    assert read.died_of == "CUDA out of memory"
    known = replace(catalogue.load(), measured=(read,))
    wanted = {"model": "mistral-small-4", "precision": "fp8", "context": "256Ki", "concurrency": 256}
    wanted |= {
        "engine": {"version": "0.26.0"},
        "machine": {"gpu": "H200", "count": 1, "max_usd_per_hour": 10},
        "storage": "300GB",
    }
    because = " ".join(reasons.because(plan(Deployment.parse(wanted), catalogue=known)))
    assert "with exactly these flags" in because
    assert "; the engine crashed under load: CUDA out of memory (" in because


@pytest.mark.parametrize(
    ("ready_s", "rates", "queued"),
    [
        ({"fresh host": 154, catalogue.WARM_REPLACEMENT: 52}, dict.fromkeys((1, 32, 128, 256, 512), 1.0), []),
        ({"fresh host": 154}, dict.fromkeys((1, 32, 128, 256, 512), 1.0), ["-caches", "-warm"]),
        ({"fresh host": 154}, dict.fromkeys((1, 32, 128, 256), 1.0), ["", "-warm"]),
        ({"fresh host": 154, catalogue.WARM_REPLACEMENT: 52}, {32: 1.0}, [""]),
    ],
)
def test_what_a_stack_still_has_to_run_is_queued(monkeypatch, tmp_path, ready_s, rates, queued):
    kit, name, known = gpu_kit.load("queues"), "1x-fp8-256ki-0.95", catalogue.load()
    changed = [
        replace(one, ready_s=ready_s, tokens_per_s=rates)
        for one in known.measured
        if (one.gpu, one.precision) == ("H200", "fp8")
    ]
    monkeypatch.setattr(kit.catalogue, "load", lambda: replace(known, measured=tuple(changed)))
    monkeypatch.setattr(sys, "argv", ["queues.py", str(tmp_path), "H200", "1"])
    kit.main()  # the stack with NVFP4 has no evidence, and is queued each time
    lines = (tmp_path / "queue.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines if "fp8" in line] == [name + one for one in queued]
    assert (tmp_path / f"{name}.json").exists() is bool(queued)
