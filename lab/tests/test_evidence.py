"""The evidence of the starts on cards against the logs that it names, read again."""

import gzip
from pathlib import Path

import fit_memory
import gpu_kit
import pytest

ROOT = Path(__file__).parents[2]
RUNS = {run["source_log"]: run for _, run in fit_memory.runs() if "source_log" in run}


PHASES = gpu_kit.load("phases")


@pytest.mark.parametrize("log", RUNS)
def test_a_run_says_what_its_log_says(log):
    text, run = gzip.decompress((ROOT / log).read_bytes()).decode(), RUNS[log]
    assert run.get("died_of") == PHASES.died_of(text)
    found = PHASES.numbers(text)
    assert {name: found[name] for name in run["reported"]} == run["reported"]


def test_the_product_reads_this_evidence():
    compact = gpu_kit.load("compact")
    assert compact.TARGET.read_text() == compact.text(), "python lab/gpu/compact.py --write"


def test_the_ways_to_end_are_among_them():
    ends = [run["died_of"].partition(".")[0] for run in RUNS.values() if run.get("died_of")]
    assert ends.count("CUDA out of memory") >= 4
    assert ends.count("No available memory for the cache blocks") >= 2
