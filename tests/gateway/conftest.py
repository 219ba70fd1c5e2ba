"""A recording backend and gateways in front of it. tests/e2e runs the same attacks against a host."""

import contextlib
import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from backend import Backend
from rendered_gateway import Gateway


@pytest.fixture
def backend():
    with Backend() as made:
        yield made


@pytest.fixture
def gateways(backend, tmp_path):
    """Start gateways with given limits. They stop at the end of the test."""
    numbers = itertools.count()
    with contextlib.ExitStack() as started:

        def start(more=None, **limits):
            gateway = Gateway(tmp_path / f"gateway{next(numbers)}", backend.port, more=more, **limits)
            return started.enter_context(gateway)

        yield start
