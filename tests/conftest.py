"""For every test."""

import importlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared: a deadline or a slow start of the generator would measure the neighbours.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

HOST_PROGRAMS = Path(__file__).parents[1] / "templates/usr/local/lib/pulumi-vllm"


@pytest.fixture
def host_module(monkeypatch):
    """Import a module of the host's programs by its name."""
    monkeypatch.syspath_prepend(HOST_PROGRAMS)
    return importlib.import_module
