"""The simulated API, and a request of the engine that uses it."""

import sys
from pathlib import Path

import pytest
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.session import Session

sys.path.insert(0, str(Path(__file__).parent))

URN = "urn:pulumi:s::p::vllm:spheron:Instance::machine"
HEALTHY = {"post_latency_s": 0, "running_after_s": 0, "ip_visible_after_s": 0}


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
