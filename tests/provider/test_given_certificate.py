"""A certificate of the user's own: what is refused, and in which words."""

import sys
from pathlib import Path

import pytest
from pulumi_vllm.provider.given_certificate import GivenCertificate, mistakes

sys.path.insert(0, str(Path(__file__).parents[1] / "door"))
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
         ["is not the certificate's", "for no name at all", "out of order"]),
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


class Quiet:
    """The call's surroundings: what was said to the person."""

    def __init__(self):
        self.warned = []

    async def warn(self, text):
        self.warned.append(text)


async def test_expiry_is_an_output_and_is_warned_of_in_time():
    call, resource = Quiet(), GivenCertificate()
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
    assert "(10 days); give a new one" in warned


async def test_a_wrong_one_shows_no_input_of_it():
    """The engine prints the value of a property that a failure names."""
    inputs = {"certificate": pem(LEAF[0]), "privateKey": key_pem(MIDDLE[1]), "hostname": "llm.example.com"}
    (failure,) = await GivenCertificate().check(Quiet(), inputs, None)
    assert failure.property == ""
