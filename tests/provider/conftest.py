"""The simulated API, and a request of the engine that uses it."""

import importlib.util
import sys
from pathlib import Path

import pytest
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.session import Session

DOUBLES = Path(__file__).parents[1] / "local_cloud" / "conftest.py"
URN = "urn:pulumi:s::p::vllm:spheron:Instance::machine"
HEALTHY = {"post_latency_s": 0, "running_after_s": 0, "ip_visible_after_s": 0}


@pytest.fixture(scope="module")
def doubles():
    spec = importlib.util.spec_from_file_location("doubles_of_localcloud", DOUBLES)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cloud(doubles):
    with doubles.cloud_at() as api:
        api.sim("profile/data-crunch", **HEALTHY)
        yield api


@pytest.fixture
def call(cloud, doubles):
    """A request of the engine, and the lines that it prints."""
    session, lines = Session(""), []
    session.config = {"spheronUrl": cloud.url, "spheronApiKey": doubles.KEY}

    async def log(_urn, text, _severity, *, ephemeral=False):
        lines.append(text)

    session.log = log
    made = Call(URN, session, timeout_s=0.1)
    yield made, lines
    session.cloud().close()
