"""The table of lab/notes/performance.md is the one that the evidence files give."""

import pathlib

import gpu_kit

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_is_current():
    given = gpu_kit.load("table").table()
    assert given in (ROOT / "lab/notes/performance.md").read_text(), "python lab/gpu/table.py --write"
