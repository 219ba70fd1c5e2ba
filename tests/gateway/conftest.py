"""A recording backend and gateways in front of it. tests/e2e uses the attacks too, against a guest."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from backend import Backend
from gateway import Gateway


@pytest.fixture
def backend():
    with Backend() as made:
        yield made


@pytest.fixture
def gateways(backend, tmp_path):
    """Start gateways with limits of their own; they end with the test."""
    made = []

    def start(**limits):
        gateway = Gateway(tmp_path / f"gateway{len(made)}", backend.port, **limits)
        made.append(gateway)
        return gateway.__enter__()

    yield start
    for gateway in made:
        gateway.__exit__()
