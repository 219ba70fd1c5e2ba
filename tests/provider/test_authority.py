"""The gateway's own CA and its certificates."""

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
from pulumi_vllm.provider.resources import authority, issued_certificates
from pulumi_vllm.provider.resources.authority import Authority, Certificate

pb = protobuf_module("provider_pb2")

TODAY = dt.datetime.now(dt.UTC).date()


class Call:
    """A request that records its warnings."""

    urn = "urn:pulumi:s::p::vllm:index:Server$vllm:index:Authority::server-ca"

    def __init__(self):
        self.warned = []

    async def warn(self, text):
        self.warned.append(text)


@pytest.mark.parametrize(("days", "warnings"), [(3650, 0), (300, 1), (-1, 1)])
async def test_the_expiry_of_a_ca_is_warned_of_a_year_ahead(days, warnings):
    call, state = Call(), {"certificate": "PEM", "expires": str(TODAY + dt.timedelta(days=days))}
    reading = await Authority().read(call, "ca-1", state, {"commonName": "x"})
    assert reading.outputs["certificate"] == "PEM"
    assert len(call.warned) == warnings
    for text in call.warned:  # a shell must parse the command
        assert shlex.split(text.split("`")[1]) == ["pulumi", "up", "--replace", Call.urn]


@pytest.mark.parametrize(("days", "fresh"), [(365, True), (31, True), (29, False), (-3, False)])
async def test_a_certificate_near_its_expiry_shows_as_a_diff(days, fresh):
    call, state = Call(), {"pem": "PEM", "expires": str(TODAY + dt.timedelta(days=days))}
    reading = await Certificate().read(call, "leaf-1", state, {"address": "192.0.2.7"})
    assert reading.inputs["fresh"] is fresh
    assert len(call.warned) == (0 if fresh else 1)


async def test_a_certificate_names_address_hostname_and_loopback():
    _, ca = await Authority().create(Call(), {"commonName": "server test"})
    inputs = {"authorityCertificate": ca["certificate"], "authorityKey": ca["privateKey"]}
    _, leaf = await Certificate().create(
        Call(), {**inputs, "address": "2001:db8::7", "hostname": "llm.example.com"}
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


async def test_a_renewed_certificate_is_unknown_in_a_preview():
    """The old outputs would hide the change of the file and the reload. The requests are those of an engine."""
    urn = "urn:pulumi:s::p::vllm:index:Certificate::server-certificate"
    inputs = {"authorityCertificate": "CA", "authorityKey": Secret("KEY"), "address": "192.0.2.7"}
    old = inputs | {"fresh": False, "pem": Secret("OLD"), "expires": "2026-12-01"}
    news = to_struct(inputs | {"fresh": True})
    servicer = Servicer(Session(""))
    diff = await servicer.Diff(pb.DiffRequest(urn=urn, olds=to_struct(old), news=news), None)
    assert dict(diff.detailedDiff).keys() == {"fresh"}
    request = pb.UpdateRequest(urn=urn, olds=to_struct(old), news=news, preview=True)
    shown = from_struct((await servicer.Update(request, None)).properties)
    assert (reveal(shown["pem"]), shown["expires"]) == (UNKNOWN, UNKNOWN)


def test_another_common_name_keeps_the_ca():
    """It contains the stack's name, and clients pin the certificate."""
    assert Authority().compare({"commonName": "llm prod"}, {"commonName": "llm production"}) == {}


class Clock(dt.datetime):
    """A clock that the test moves."""

    today = dt.datetime.now(dt.UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.today.astimezone(tz)


async def test_a_weekly_up_keeps_the_certificate_valid_for_three_years(monkeypatch):
    for module in (authority, issued_certificates):
        monkeypatch.setattr(module.dt, "datetime", Clock)
    call, certificate = Call(), Certificate()
    ca = (await Authority().create(call, {"commonName": "server test"}))[1]
    inputs = {
        "authorityCertificate": ca["certificate"],
        "authorityKey": ca["privateKey"],
        "address": "192.0.2.7",
        "fresh": True,
    }
    state = inputs | (await certificate.create(call, dict(inputs)))[1]
    renewals = []
    start = Clock.today
    for week in range(3 * 52):
        monkeypatch.setattr(Clock, "today", start + dt.timedelta(weeks=week))
        reading = await certificate.read(call, "leaf-1", state, inputs)
        if differences := certificate.compare(reading.inputs, inputs):
            assert set(differences) == {"fresh"}
            renewals.append(week)
            state = inputs | await certificate.update(call, "leaf-1", state, dict(inputs))
        made = x509.load_pem_x509_certificate(str(reveal(state["pem"])).encode())
        assert made.not_valid_before_utc <= Clock.today
        assert made.not_valid_after_utc - Clock.today > dt.timedelta(days=28)
    assert len(renewals) == len(call.warned) == 3
