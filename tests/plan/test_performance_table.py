"""The table of docs/performance.md is the one that the evidence files give."""

import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_is_current():
    spec = importlib.util.spec_from_file_location("table", ROOT / "tests/gpu/table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() in (ROOT / "docs/performance.md").read_text(), "python tests/gpu/table.py --write"
