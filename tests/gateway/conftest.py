"""A recording backend and gateways in front of it. tests/e2e runs the same attacks against a host."""

import asyncio
import contextlib
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
async def gateways(backend, tmp_path):
    """Start gateways with given limits. They stop at the end of the test."""
    made = []
    with contextlib.ExitStack() as started:

        def start(more=None, changes=None, **limits):
            folder = tmp_path / f"gateway{len(made)}"
            made.append(Gateway(folder, backend.port, changes=changes, more=more, **limits))
            return started.enter_context(made[-1])

        yield start
    # A closed TLS connection waits for the other side, and one that outlives its loop is an error of another test.
    for writer in (writer for gateway in made for writer in gateway.clients):
        writer.transport.abort()
    await asyncio.sleep(0)
