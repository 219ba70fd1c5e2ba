"""The rows of docs/reference/faults.md: some in tier ci, all in tier all, on one stack per tier."""

import fault_table
import pytest
from destroys import DestroyRow
from faults import ROWS, key
from rig import Rig

# Rows that start without a machine come first, because they are fast; rows that destroy the stack come last.
ORDERED = sorted(ROWS, key=lambda row: (not row.ci, isinstance(row, DestroyRow), row.start != "new"))


@pytest.fixture(scope="module")
def rig(clouds, tmp_path_factory):
    made = Rig(clouds("fake"), tmp_path_factory.mktemp("faults"))
    yield made
    made.end()


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=key(row), marks=() if row.ci else pytest.mark.all) for row in ORDERED]
)
def test_a_fault_loses_nothing(rig, row):
    try:
        row.prove(rig)
    except AssertionError:
        rig.start_over()
        raise


def test_the_page_has_every_row():
    text = fault_table.TARGET.read_text()
    lines = fault_table.lines_of(text)
    assert fault_table.document(lines) == text, "python tests/e2e/fault_table.py --write"
    for row in ROWS:
        assert lines[row.name].startswith("| " + " | ".join(fault_table.described(row)) + " | ")
