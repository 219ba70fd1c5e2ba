"""The rows of docs/faults.md: a few in tier ci, all of them in tier all, one stack for those of a tier."""

import fault_table
import pytest
from destroys import Departure
from faults import ROWS, key
from stand import Stand

# A row that begins without a machine is cheap while there is none, and one that ends without it comes last.
ORDERED = sorted(ROWS, key=lambda row: (not row.ci, isinstance(row, Departure), row.start != "new"))


@pytest.fixture(scope="module")
def stand(clouds, tmp_path_factory):
    made = Stand(clouds("fake"), tmp_path_factory.mktemp("faults"))
    yield made
    made.end()


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=key(row), marks=() if row.ci else pytest.mark.all) for row in ORDERED]
)
def test_nothing_is_lost(stand, row):
    try:
        row.prove(stand)
    except AssertionError:
        stand.give_up()
        raise


def test_the_page_tells_of_every_row():
    text = fault_table.TARGET.read_text()
    lines = fault_table.lines_of(text)
    assert fault_table.document(lines) == text, "python tests/e2e/fault_table.py --write"
    for row in ROWS:
        assert lines[row.switch].startswith("| " + " | ".join(fault_table.described(row)) + " | ")
