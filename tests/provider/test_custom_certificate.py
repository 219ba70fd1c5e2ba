"""A certificate of the user's own: what is refused, and in which words."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pulumi_vllm.provider.plugin.protocol import UNKNOWN
from pulumi_vllm.provider.resources.custom_certificate import CustomCertificate, mistakes

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
from certificates import DAY, NOW, issue, key_pem, pem

ROOT = issue("root")
MIDDLE = issue("middle", issuer=ROOT)
LEAF = issue("leaf", ["llm.example.com"], MIDDLE)
WILD = issue("wild", ["*.example.com"], MIDDLE)


def test_a_leaf_with_its_chain_is_taken_and_put_together():
    assert mistakes(pem(LEAF[0], MIDDLE[0]), key_pem(LEAF[1]), "llm.example.com") == []
    assert mistakes(pem(WILD[0]), key_pem(WILD[1]), "llm.example.com") == []


@pytest.mark.parametrize(
    ("certificate", "key", "hostname", "words"),
    [
        ("", key_pem(LEAF[1]), "llm.example.com", ["can't be read"]),
        ("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "", "a.b", ["can't be read"]),
        (pem(LEAF[0]), "not a key", "llm.example.com", ["key can't be read"]),
        (pem(LEAF[0]), key_pem(LEAF[1], b"secret"), "llm.example.com", ["without a passphrase"]),
        (pem(LEAF[0]), key_pem(MIDDLE[1]), "llm.example.com", ["is not the certificate's"]),
        (pem(MIDDLE[0], LEAF[0]), key_pem(LEAF[1]), "llm.example.com",
         ["is not the certificate's", "for no name at all", "is a CA's", "out of order"]),
        (pem(LEAF[0]), key_pem(LEAF[1]), "other.example.com", ["is for llm.example.com, not for other.example.com"]),
        (pem(WILD[0]), key_pem(WILD[1]), "a.llm.example.com", ["is for *.example.com"]),
        (pem(WILD[0]), key_pem(WILD[1]), "example.com", ["is for *.example.com"]),
        (pem(LEAF[0], ROOT[0]), key_pem(LEAF[1]), "llm.example.com", ["CN=root did not sign the one before it"]),
    ],
)  # fmt: skip
def test_what_can_not_work_is_refused_in_a_sentence(certificate, key, hostname, words):
    found = mistakes(certificate, key, hostname)
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence
        assert not any(line in sentence for line in key.splitlines() if line)


@pytest.mark.parametrize(
    ("start", "end", "word"), [(-90, -1, "ended on"), (1, 90, "begins on")], ids=["past", "future"]
)
def test_out_of_its_dates(start, end, word):
    made, key = issue("late", ["a.example.com"], start=NOW + start * DAY, end=NOW + end * DAY)
    (sentence,) = mistakes(pem(made), key_pem(key), "a.example.com")
    assert word in sentence


USAGE = x509.oid.ExtendedKeyUsageOID
NAME = "a.example.com"


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"key": rsa.generate_private_key(65537, 1024)}, "RSA key of 1024 bits"),
        ({"key": rsa.generate_private_key(65537, 2048)}, None),
        ({"key": ec.generate_private_key(ec.BrainpoolP256R1())}, "a kind of key that clients don't take"),
        ({"key": ec.generate_private_key(ec.SECP384R1())}, None),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, None),
        ({"usage": [USAGE.CLIENT_AUTH]}, "is not for servers"),
        ({"usage": [USAGE.CLIENT_AUTH, USAGE.SERVER_AUTH]}, None),
        ({"ca": True}, "is a CA's"),
    ],
)
def test_a_leaf_that_haproxy_or_clients_refuse(wanted, word):
    made, key = issue("leaf", [NAME], **wanted)
    found = mistakes(pem(made), key_pem(key), NAME)
    assert [word in sentence for sentence in found] == [True] * (word is not None)


@pytest.mark.parametrize("curve", ["prime256v1", "secp224k1"])
@pytest.mark.parametrize("written", ["explicit", "named_curve"])
def test_an_odd_curve_is_told_and_no_internal_error(tmp_path, curve, written):
    """OpenSSL makes them, also with the curve's parameters in the place of its name."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes"]
    words += ["-pkeyopt", f"ec_param_enc:{written}", "-subj", "/CN=x"]
    words += ["-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE"]
    words += ["-keyout", tmp_path / "key", "-out", tmp_path / "pem"]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    found = mistakes((tmp_path / "pem").read_text(), (tmp_path / "key").read_text(), NAME)
    fine = (curve, written) == ("prime256v1", "named_curve")
    assert any("kind of key that clients don't take" in sentence for sentence in found) is not fine
    assert bool(found) is not fine


def test_the_whole_chain_has_to_be_in_date():
    middle = issue("middle", issuer=ROOT, end=NOW - DAY / 2)
    leaf, key = issue("leaf", [NAME], middle)
    (sentence,) = mistakes(pem(leaf, middle[0]), key_pem(key), NAME)
    assert sentence.startswith("CN=middle of its chain ended on")


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
async def test_a_certificate_with_its_key_in_one_text_is_refused(combined, key):
    """HAProxy's own way to keep them; here the certificate is an output that everybody may read."""
    inputs = {"certificate": combined, "privateKey": key, "hostname": "llm.example.com"}
    (failure,) = await CustomCertificate().check(Quiet(), inputs, None)
    assert failure.property == ""
    assert "holds a private key" in failure.reason
    assert not any(line in failure.reason for line in KEY_TEXT.splitlines())


async def test_only_what_was_parsed_goes_on():
    """Text around the certificates, and certificates beside the key, are left behind."""
    inputs = {
        "certificate": "subject=x\n" + pem(LEAF[0]) + "\nissuer=y\n\n" + pem(MIDDLE[0]),
        "privateKey": pem(ROOT[0]) + "  \n" + OLD_KEY_TEXT,
        "hostname": "llm.example.com",
    }
    assert await CustomCertificate().check(Quiet(), inputs, None) == []
    _, outputs = await CustomCertificate().create(Quiet(), inputs)
    assert outputs["chain"] == pem(LEAF[0], MIDDLE[0])
    assert outputs["pem"] == outputs["chain"] + KEY_TEXT


async def test_a_preview_shows_another_certificate():
    """Also one that is not known yet: the old one's outputs would hide the file and the reload that follow."""
    new, key = issue("new", [NAME])
    inputs = {"certificate": pem(new), "privateKey": key_pem(key), "hostname": NAME}
    resource, old = CustomCertificate(), {"pem": "OLD", "chain": "OLD", "expires": "2026-01-01"}
    _, outputs = await resource.create(Quiet(), inputs)
    assert await resource.preview_update(Quiet(), old, inputs) == outputs
    unknown = await resource.preview_update(Quiet(), old, inputs | {"certificate": UNKNOWN})
    assert unknown == dict.fromkeys(outputs)


class Quiet:
    """The call's surroundings: what was said to the person."""

    def __init__(self):
        self.warned = []

    async def warn(self, text):
        self.warned.append(text)


async def test_expiry_is_an_output_and_is_warned_of_in_time():
    call, resource = Quiet(), CustomCertificate()
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
    assert "(in 10 days); set a new one" in warned


async def test_a_wrong_one_shows_no_input_of_it():
    """The engine prints the value of a property that a failure names."""
    inputs = {"certificate": pem(LEAF[0]), "privateKey": key_pem(MIDDLE[1]), "hostname": "llm.example.com"}
    (failure,) = await CustomCertificate().check(Quiet(), inputs, None)
    assert failure.property == ""
