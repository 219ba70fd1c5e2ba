"""For every test."""

import importlib
import importlib.util
import sys
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


@pytest.fixture(scope="session")
def doubles():
    """The doubles of the local cloud's machines, with which its API runs without containers."""
    file = Path(__file__).with_name("local_cloud") / "conftest.py"
    spec = importlib.util.spec_from_file_location("doubles_of_localcloud", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
