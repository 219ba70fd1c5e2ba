"""The gateway's certificates in real TLS handshakes: our CA over a change of machine, a chain of the user's own."""

import asyncio
import ssl

import pytest
from certificates import issue, key_pem, pem
from pulumi_vllm.provider.resources.authority import Authority, Certificate
from pulumi_vllm.provider.resources.custom_certificate import CustomCertificate

ROOT = issue("root")
MIDDLE = issue("middle", issuer=ROOT)
LEAF = issue("leaf", ["llm.example.com"], MIDDLE)

WAIT_S = 30  # an upper bound for a busy machine; usually the first look is enough


async def hello(gateway, ca, name):
    """Shake hands as a client that knows one CA; the certificate as it was shown."""
    context = ssl.create_default_context(cadata=ca)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname=name)
    peer = writer.get_extra_info("peercert")
    writer.close()
    return peer


async def shown(gateway, ca, name):
    """As `hello`; for a moment after a reload the worker from before it still takes connections."""
    for _ in range(WAIT_S * 20):
        try:
            return await hello(gateway, ca, name)
        except ssl.SSLCertVerificationError:
            await asyncio.sleep(0.05)
    return await hello(gateway, ca, name)


def put(gateway, text):
    (gateway.folder / "tls.pem").write_text(text)
    gateway.reload()


async def test_the_ca_outlives_the_machine_and_its_address(gateways):
    gateway = gateways()
    _, ca = await Authority().create(None, {"commonName": "server test"})
    _, other = await Authority().create(None, {"commonName": "server test"})
    for address in ("192.0.2.7", "198.51.100.9", "2001:db8::7"):
        inputs = {
            "authorityCertificate": ca["certificate"],
            "authorityKey": ca["privateKey"],
            "address": address,
        }
        _, leaf = await Certificate().create(None, {**inputs, "hostname": "llm.example.com"})
        await asyncio.to_thread(put, gateway, leaf["pem"])
        for name in (address, "llm.example.com", "localhost", "127.0.0.1"):
            assert await shown(gateway, ca["certificate"], name)
    for wrong, name in ((ca, "192.0.2.7"), (ca, "evil.example.com"), (other, "2001:db8::7")):
        with pytest.raises(ssl.SSLCertVerificationError):
            await hello(gateway, wrong["certificate"], name)


async def test_a_chain_of_the_users_own_is_shown_whole(gateways):
    """As an ACME client hands it out: leaf and intermediate; the client knows the root alone."""
    gateway = gateways()
    inputs = {
        "certificate": pem(LEAF[0], MIDDLE[0]),
        "privateKey": key_pem(LEAF[1]),
        "hostname": "llm.example.com",
    }
    _, given = await CustomCertificate().create(None, inputs)
    await asyncio.to_thread(put, gateway, given["pem"])
    certificate = await shown(gateway, pem(ROOT[0]), "llm.example.com")
    assert certificate["subjectAltName"] == (("DNS", "llm.example.com"),)
    # The readiness check on the host knows what was given, not the root; it names the certificate's own authority.
    readiness = ssl.create_default_context(cadata=inputs["certificate"])
    readiness.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.port, ssl=readiness, server_hostname="llm.example.com"
    )
    writer.close()
