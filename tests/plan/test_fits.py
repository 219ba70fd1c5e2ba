"""The tables of README.md and docs/fits.md are those that the plan gives."""

import fits
import pytest


@pytest.mark.parametrize("name", fits.TABLES)
def test_the_table_is_current(name):
    _, table = fits.TABLES[name]
    assert table() in (fits.ROOT / name).read_text(), "python tests/plan/fits.py --write"


def test_every_stack_says_who_it_is_for():
    for path in (fits.ROOT / "stacks").glob("Pulumi.*.yaml"):
        assert path.read_text().startswith("# For "), path.name
