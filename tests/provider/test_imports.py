"""Imports, with the requests that an engine sends: Read without a state, then Check of what was read against itself."""

import dataclasses

import pytest
from pulumi_vllm.provider.plugin.adapter import Servicer
from pulumi_vllm.provider.plugin.package_schema import RESOURCES
from pulumi_vllm.provider.plugin.protocol import protobuf_module
from pulumi_vllm.provider.resources.volume import Volume

pb = protobuf_module("provider_pb2")
IMPORTABLE = {"vllm:spheron:Instance", "vllm:spheron:Volume"}


class AbortedError(Exception):
    """What grpc raises."""


class Context:
    """The part of a gRPC context that the adapter uses."""

    async def abort(self, _code, message, _trailing=()):
        raise AbortedError(message)


def urn(token):
    return f"urn:pulumi:s::p::{token}::it"


@pytest.mark.parametrize("token", sorted(IMPORTABLE))
async def test_what_an_import_reads_is_valid(cloud, call, token):
    volume = dataclasses.replace(call[0], urn=urn("vllm:spheron:Volume"))
    new = {"sizeGb": 1, "gpu": "CPU", "count": 0, "region": "Finland 3"}
    ids = {
        "vllm:spheron:Instance": cloud.running(),
        "vllm:spheron:Volume": (await Volume().create(volume, new))[0],
    }
    servicer = Servicer(call[0].session)
    reading = await servicer.Read(pb.ReadRequest(urn=urn(token), id=ids[token]), Context())
    assert reading.id == ids[token]
    request = pb.CheckRequest(urn=urn(token), olds=reading.inputs, news=reading.inputs)
    assert list((await servicer.Check(request, Context())).failures) == []
    # A program must still give them.
    request = pb.CheckRequest(urn=urn(token), news=reading.inputs)
    assert all("missing" in one.reason for one in (await servicer.Check(request, Context())).failures)
    assert (await servicer.Check(request, Context())).failures


@pytest.mark.parametrize("token", sorted(RESOURCES.keys() - IMPORTABLE))
async def test_what_cannot_be_imported_says_what_to_do(call, token):
    servicer = Servicer(call[0].session)
    with pytest.raises(AbortedError, match=r"^it: .*`pulumi up`") as refusal:
        await servicer.Read(pb.ReadRequest(urn=urn(token), id="some-id"), Context())
    assert "cannot be imported" in str(refusal.value) or "import the instance and the volume only" in str(
        refusal.value
    )
