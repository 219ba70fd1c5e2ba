"""A recording backend and doors in front of it. tests/e2e uses the attacks too, against a guest."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from backend import Backend
from door import Door


@pytest.fixture
def backend():
    with Backend() as made:
        yield made


@pytest.fixture
def doors(backend, tmp_path):
    """Start doors with limits of their own; they end with the test."""
    made = []

    def start(**limits):
        door = Door(tmp_path / f"door{len(made)}", backend.port, **limits)
        made.append(door)
        return door.__enter__()

    yield start
    for door in made:
        door.__exit__()
