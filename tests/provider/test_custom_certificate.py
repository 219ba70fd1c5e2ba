"""Custom certificates: which ones are refused, and with which messages."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.resources.certificate_problems import problems
from pulumi_vllm.provider.resources.custom_certificate import CustomCertificate

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
from certificates import DAY, NOW, issue, key_pem, pem

ROOT = issue("root")
MIDDLE = issue("middle", issuer=ROOT)
LEAF = issue("leaf", ["llm.example.com"], MIDDLE)
WILD = issue("wild", ["*.example.com"], MIDDLE)


def test_a_certificate_with_its_chain_is_accepted():
    assert problems(pem(LEAF[0], MIDDLE[0]), key_pem(LEAF[1]), "llm.example.com") == []
    assert problems(pem(WILD[0]), key_pem(WILD[1]), "llm.example.com") == []


@pytest.mark.parametrize(
    ("certificate", "key", "hostname", "words"),
    [
        ("", key_pem(LEAF[1]), "llm.example.com", ["can't be read"]),
        ("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "", "a.b", ["can't be read"]),
        (pem(LEAF[0]), "not a key", "llm.example.com", ["key of the custom certificate can't be read"]),
        (pem(LEAF[0]), key_pem(LEAF[1], b"secret"), "llm.example.com", ["without a passphrase"]),
        (pem(LEAF[0]), key_pem(MIDDLE[1]), "llm.example.com", ["does not belong to"]),
        (pem(MIDDLE[0], LEAF[0]), key_pem(LEAF[1]), "llm.example.com",
         ["does not belong to", "is for no name", "is a CA certificate", "out of order"]),
        (pem(LEAF[0]), key_pem(LEAF[1]), "other.example.com", ["is for llm.example.com, not for other.example.com"]),
        (pem(WILD[0]), key_pem(WILD[1]), "a.llm.example.com", ["is for *.example.com"]),
        (pem(WILD[0]), key_pem(WILD[1]), "example.com", ["is for *.example.com"]),
        (
            pem(LEAF[0], ROOT[0]),
            key_pem(LEAF[1]),
            "llm.example.com",
            ["CN=root did not sign the certificate before it"],
        ),
    ],
)  # fmt: skip
def test_each_problem_has_its_message_without_the_key(certificate, key, hostname, words):
    found = problems(certificate, key, hostname)
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message
        assert not any(line in message for line in key.splitlines() if line)


@pytest.mark.parametrize(
    ("start", "end", "word"),
    [(-90, -1, "expired on"), (1, 90, "is not valid before")],
    ids=["past", "future"],
)
def test_an_expired_or_future_certificate_is_refused(start, end, word):
    made, key = issue("late", ["a.example.com"], start=NOW + start * DAY, end=NOW + end * DAY)
    (message,) = problems(pem(made), key_pem(key), "a.example.com")
    assert word in message


USAGE = x509.oid.ExtendedKeyUsageOID
NAME = "a.example.com"


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"key": rsa.generate_private_key(65537, 1024)}, "RSA key of 1024 bits"),
        ({"key": rsa.generate_private_key(65537, 2048)}, None),
        (
            {"key": ec.generate_private_key(ec.BrainpoolP256R1())},
            "a kind of key that many clients don't support",
        ),
        ({"key": ec.generate_private_key(ec.SECP384R1())}, None),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, None),
        ({"usage": [USAGE.CLIENT_AUTH]}, "is not for a server"),
        ({"usage": [USAGE.CLIENT_AUTH, USAGE.SERVER_AUTH]}, None),
        ({"ca": True}, "is a CA certificate"),
    ],
)
def test_certificates_that_haproxy_or_clients_refuse(wanted, word):
    made, key = issue("leaf", [NAME], **wanted)
    found = problems(pem(made), key_pem(key), NAME)
    assert [word in message for message in found] == [True] * (word is not None)


@pytest.mark.parametrize("curve", ["prime256v1", "secp224k1"])
@pytest.mark.parametrize("written", ["explicit", "named_curve"])
def test_an_unsupported_curve_is_refused_with_a_message(tmp_path, curve, written):
    """OpenSSL can write the parameters of a curve instead of its name."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes"]
    words += ["-pkeyopt", f"ec_param_enc:{written}", "-subj", "/CN=x"]
    words += ["-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE"]
    words += ["-keyout", tmp_path / "key", "-out", tmp_path / "pem"]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    found = problems((tmp_path / "pem").read_text(), (tmp_path / "key").read_text(), NAME)
    fine = (curve, written) == ("prime256v1", "named_curve")
    assert any("kind of key that many clients don't support" in message for message in found) is not fine
    assert bool(found) is not fine


def test_an_expired_certificate_of_the_chain_is_refused():
    middle = issue("middle", issuer=ROOT, end=NOW - DAY / 2)
    leaf, key = issue("leaf", [NAME], middle)
    (message,) = problems(pem(leaf, middle[0]), key_pem(key), NAME)
    assert message.startswith("CN=middle of its chain expired on")


KEY_TEXT = key_pem(LEAF[1])
OLD_KEY_TEXT = LEAF[1].private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()  # fmt: skip


@pytest.mark.parametrize(
    "combined",
    [pem(LEAF[0]) + KEY_TEXT, KEY_TEXT + pem(LEAF[0], MIDDLE[0]), pem(LEAF[0]) + OLD_KEY_TEXT, KEY_TEXT],
    ids=["key last", "key first", "another kind", "key alone"],
)
@pytest.mark.parametrize("key", [KEY_TEXT, UNKNOWN], ids=["known", "unknown"])
async def test_a_certificate_in_one_text_with_its_key_is_refused(combined, key):
    """HAProxy uses such files. Here, the certificate is an output that is not secret."""
    inputs = {"certificate": combined, "privateKey": key, "hostname": "llm.example.com"}
    (failure,) = await CustomCertificate().check(Call(), inputs, None)
    assert failure.property == ""
    assert "holds a private key" in failure.reason
    assert not any(line in failure.reason for line in KEY_TEXT.splitlines())


async def test_only_certificates_and_key_reach_the_outputs():
    """Text around the certificates, and certificates beside the key, are dropped."""
    inputs = {
        "certificate": "subject=x\n" + pem(LEAF[0]) + "\nissuer=y\n\n" + pem(MIDDLE[0]),
        "privateKey": pem(ROOT[0]) + "  \n" + OLD_KEY_TEXT,
        "hostname": "llm.example.com",
    }
    assert await CustomCertificate().check(Call(), inputs, None) == []
    _, outputs = await CustomCertificate().create(Call(), inputs)
    assert outputs["chain"] == pem(LEAF[0], MIDDLE[0])
    assert outputs["pem"] == outputs["chain"] + KEY_TEXT


async def test_a_preview_shows_the_outputs_of_a_new_certificate():
    """Unknown inputs give unknown outputs: the old ones would hide the change of the file and the reload."""
    new, key = issue("new", [NAME])
    inputs = {"certificate": pem(new), "privateKey": key_pem(key), "hostname": NAME}
    resource, old = CustomCertificate(), {"pem": "OLD", "chain": "OLD", "expires": "2026-01-01"}
    _, outputs = await resource.create(Call(), inputs)
    assert await resource.preview_update(Call(), old, inputs) == outputs
    unknown = await resource.preview_update(Call(), old, inputs | {"certificate": UNKNOWN})
    assert unknown == dict.fromkeys(outputs)


class Call:
    """A request that records its warnings."""

    def __init__(self):
        self.warned = []

    async def warn(self, text):
        self.warned.append(text)


async def test_the_expiry_is_an_output_and_is_warned_of():
    call, resource = Call(), CustomCertificate()
    soon, key = issue("soon", ["a.example.com"], end=NOW + 10 * DAY)
    inputs = {"certificate": pem(soon), "privateKey": key_pem(key), "hostname": "a.example.com"}
    assert await resource.check(call, inputs, None) == []
    _, outputs = await resource.create(call, inputs)
    assert outputs["expires"] == str((NOW + 10 * DAY).date())
    assert outputs["pem"].startswith(pem(soon).strip())
    assert outputs["pem"].rstrip().endswith("-----END PRIVATE KEY-----")
    assert call.warned == []
    await resource.read(call, "given", outputs, inputs)
    (warned,) = call.warned
    days = ((NOW + 10 * DAY).date() - dt.datetime.now(dt.UTC).date()).days  # 10, or 9 after midnight
    assert f"(in {days} days); set a new one" in warned


async def test_a_failure_names_no_property():
    """The engine would print the value of that property."""
    inputs = {"certificate": pem(LEAF[0]), "privateKey": key_pem(MIDDLE[1]), "hostname": "llm.example.com"}
    (failure,) = await CustomCertificate().check(Call(), inputs, None)
    assert failure.property == ""
