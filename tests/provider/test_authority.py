"""Our own CA: it is kept, and says in time when it or a leaf ends."""

import datetime as dt
import shlex

import pytest
from cryptography import x509
from pulumi_vllm.provider.plugin.adapter import Servicer
from pulumi_vllm.provider.plugin.protocol import (
    UNKNOWN,
    Secret,
    from_struct,
    protobuf_module,
    reveal,
    to_struct,
)
from pulumi_vllm.provider.plugin.session import Session
from pulumi_vllm.provider.resources.authority import Authority, Certificate

pb = protobuf_module("provider_pb2")

TODAY = dt.datetime.now(dt.UTC).date()


class Said:
    """The call's surroundings: what was said to the person."""

    urn = "urn:pulumi:s::p::vllm:index:Server$vllm:index:Authority::server-ca"

    def __init__(self):
        self.warned = []

    async def warn(self, text):
        self.warned.append(text)


@pytest.mark.parametrize(("days", "warnings"), [(3650, 0), (300, 1), (-1, 1)])
async def test_a_ca_near_its_end_is_told_a_year_ahead(days, warnings):
    call, state = Said(), {"certificate": "PEM", "expires": str(TODAY + dt.timedelta(days=days))}
    reading = await Authority().read(call, "ca-1", state, {"commonName": "x"})
    assert reading.outputs["certificate"] == "PEM"
    assert len(call.warned) == warnings
    for text in call.warned:  # as a shell reads it
        assert shlex.split(text.split("`")[1]) == ["pulumi", "up", "--replace", Said.urn]


@pytest.mark.parametrize(("days", "fresh"), [(365, True), (31, True), (29, False), (-3, False)])
async def test_a_leaf_near_its_end_is_a_difference(days, fresh):
    call, state = Said(), {"pem": "PEM", "expires": str(TODAY + dt.timedelta(days=days))}
    reading = await Certificate().read(call, "leaf-1", state, {"address": "192.0.2.7"})
    assert reading.inputs["fresh"] is fresh
    assert len(call.warned) == (0 if fresh else 1)


async def test_a_leaf_is_for_the_address_the_name_and_loopback_and_ends_before_its_ca():
    _, ca = await Authority().create(Said(), {"commonName": "server test"})
    inputs = {"authorityCertificate": ca["certificate"], "authorityKey": ca["privateKey"]}
    _, leaf = await Certificate().create(
        Said(), {**inputs, "address": "2001:db8::7", "hostname": "llm.example.com"}
    )
    made = x509.load_pem_x509_certificate(leaf["pem"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [
        "2001:db8::7",
        "llm.example.com",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(ca["certificate"].encode()))
    assert leaf["expires"] < ca["expires"]


async def test_a_leaf_issued_anew_is_unknown_in_a_preview():
    """The old one would hide the gateway's file and the reload that follow. Asked as an engine asks."""
    urn = "urn:pulumi:s::p::vllm:index:Certificate::server-certificate"
    inputs = {"authorityCertificate": "CA", "authorityKey": Secret("KEY"), "address": "192.0.2.7"}
    old = inputs | {"fresh": False, "pem": Secret("OLD"), "expires": "2026-12-01"}
    news = to_struct(inputs | {"fresh": True})
    servicer = Servicer(Session(""))
    seen = await servicer.Diff(pb.DiffRequest(urn=urn, olds=to_struct(old), news=news), None)
    assert dict(seen.detailedDiff).keys() == {"fresh"}
    asked = pb.UpdateRequest(urn=urn, olds=to_struct(old), news=news, preview=True)
    shown = from_struct((await servicer.Update(asked, None)).properties)
    assert (reveal(shown["pem"]), shown["expires"]) == (UNKNOWN, UNKNOWN)
