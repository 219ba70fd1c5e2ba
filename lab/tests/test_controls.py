"""Variants that one start of the engine serves in turn, and what becomes evidence of them."""

import enum
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import gpu_kit

CONTROLS, PROCESSES = gpu_kit.load("controls"), gpu_kit.load("processes")


class Mode(enum.Enum):
    """As vLLM's CUDAGraphMode."""

    PIECEWISE = 1
    FULL = 2


def graphs(mode, *sizes):
    return {mode: [SimpleNamespace(mode=mode.name, num_tokens=size) for size in sizes]}


def named(found):
    return [(one.mode, one.num_tokens) for one in found]


def test_a_step_takes_the_smallest_full_graph_before_the_smallest_piecewise_one():
    captured = graphs(Mode.PIECEWISE, 16, 8, 1) | graphs(Mode.FULL, 8, 2)
    found = CONTROLS._candidates(captured)
    assert named(found[2, 0]) == [("FULL", 2), ("PIECEWISE", 8)]
    assert named(found[3, 0]) == [("FULL", 8), ("PIECEWISE", 8)]
    assert named(found[9, 0]) == [("PIECEWISE", 16)]
    assert (17, 0) not in found


def test_a_name_leaves_out_graphs_by_kind_and_size():
    captured = graphs(Mode.PIECEWISE, 8, 9, 16) | graphs(Mode.FULL, 8, 9)
    chosen = {
        name: CONTROLS._chosen(captured, name) for name in ("all", "decode-only", "few-piecewise", "thin")
    }
    assert chosen["all"] == captured
    assert named(chosen["decode-only"][Mode.FULL]) == [("FULL", 8), ("FULL", 9)]
    assert chosen["decode-only"][Mode.PIECEWISE] == []
    assert named(chosen["few-piecewise"][Mode.PIECEWISE]) == [("PIECEWISE", 8), ("PIECEWISE", 16)]
    assert named(chosen["thin"][Mode.FULL]) == [("FULL", 8)]


def test_the_words_of_a_level_stay_in_force(monkeypatch, tmp_path):
    monkeypatch.setattr(CONTROLS, "FILE", tmp_path / "controls.json")
    monkeypatch.setattr(CONTROLS.time, "sleep", lambda _: None)
    CONTROLS.set_to("graphs=thin;gc=700/10/10")
    assert CONTROLS.set_to("gc=1/2/3") == {"graphs": "thin", "gc": "1/2/3"}
    assert json.loads((tmp_path / "controls.json").read_text()) == {"graphs": "thin", "gc": "1/2/3"}


def test_a_level_that_was_changed_while_the_engine_ran_is_no_evidence_of_its_flags():
    evidence = gpu_kit.load("evidence")
    own, changed = (
        {"concurrency": 1, "output_throughput": 9.0},
        {"concurrency": 2, "controls": {"graphs": "thin"}},
    )
    assert evidence.levels({"throughput": [own, changed]}) == [own]


def test_a_busy_process_is_seen_and_an_idle_one_is_not():
    def start(code):
        """A Python that has started."""
        words = [sys.executable, "-c", f"print(flush=True)\n{code}"]
        process = subprocess.Popen(
            words, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        return process

    both = [start("while True: pass"), start("input()")]
    try:
        busy = PROCESSES.Busy(*(one.pid for one in both))
        time.sleep(1)
        (name,) = busy.shares()
        assert name.endswith(f" {both[0].pid}")
    finally:
        for one in both:
            one.kill()
            one.communicate()
