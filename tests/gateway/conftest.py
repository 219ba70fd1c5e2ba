"""A recording backend and gateways in front of it. tests/e2e uses the attacks too, against a guest."""

import contextlib
import itertools
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
    numbers = itertools.count()
    with contextlib.ExitStack() as started:

        def start(**limits):
            gateway = Gateway(tmp_path / f"gateway{next(numbers)}", backend.port, **limits)
            return started.enter_context(gateway)

        yield start
