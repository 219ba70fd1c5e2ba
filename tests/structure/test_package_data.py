"""Package data is small, and is data."""

import pathlib

import pytest

COMPONENTS = pathlib.Path(__file__).parents[2] / "components"
PLAN_DATA = COMPONENTS / "pulumi_vllm/plan/data"
FILES = sorted(path for path in PLAN_DATA.rglob("*") if path.is_file())


def test_the_data_beside_the_locks_takes_at_most_200_kb():
    """A model takes about 1.2 kB, the classes and parsers of the pinned vLLM 8 kB, the hub's configurations 8 kB.

    With them a plan of a catalogue's model needs no network. The limit was 150 kB for three models.
    """
    sizes = {
        path: path.stat().st_size
        for path in COMPONENTS.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith("requirements")
    }
    assert sum(sizes.values()) <= 200_000, sorted(sizes.items(), key=lambda item: -item[1])[:3]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLAN_DATA)))
def test_package_data_contains_no_programs(path):
    assert path.suffix in {".json", ".yaml", ".txt"}
    assert not path.stat().st_mode & 0o111
