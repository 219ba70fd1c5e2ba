"""The stack file's block: units, defaults, and every mistake at once."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import Deployment, PlanError, catalogue, plan
from pulumi_vllm.plan import quantities as units

GOOD = yaml.safe_load("""
model: mistral-small-4
context: 32Ki
concurrency: 256
machine: {gpu: H200, count: 2, max_usd_per_hour: 9}
storage: 300GB
access: {allow: [203.0.113.0/24], keys: [team-a]}
""")


def altered(**changes: object) -> dict:
    block = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = block
        for parent in parents:
            target = target.setdefault(parent, {})
        target[key] = value
    return block


def mistakes(block: dict) -> tuple[str, ...]:
    with pytest.raises(PlanError) as refusal:
        plan(Deployment.parse(block))
    return refusal.value.mistakes


def test_units_and_defaults():
    deployment = Deployment.parse(GOOD)
    assert deployment.context == 32_768
    assert deployment.storage_gb == 300
    assert deployment.access.ssh == ("203.0.113.0/24",)
    assert deployment.machine.billing == "on-demand"
    assert deployment.weights.endpoint == "https://huggingface.co"


def test_the_default_limit_of_a_key_is_above_what_any_measured_machine_answers():
    measured = catalogue.load().measured
    # 256 tokens out in each of them
    rates = [rate / 256 for one in measured for rate in one.tokens_per_s.values()]
    rates += [row["output_throughput"] / row["output_tokens"] for one in measured for row in one.load]
    assert Deployment.parse(GOOD).gateway.requests_per_minute > 2 * 60 * max(rates)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("32Ki", 32_768), ("32k", 32_000), (2048, 2048), ("1Mi", 1_048_576), ("1.5Ki", 1_536)],
)
def test_tokens(text, tokens):
    assert units.tokens(text) == tokens


@pytest.mark.parametrize(("text", "size"), [("300GB", 300), ("1TB", 1000), (40, 40), ("280GiB", 301)])
def test_gigabytes(text, size):
    assert units.gigabytes(text) == size


@given(st.integers(1, 10**7))
def test_a_plain_number_is_itself(number):
    assert units.tokens(str(number)) == units.tokens(number) == number


def test_every_mistake_at_once():
    block = altered(
        machine__bilng="spot", context="3Q", access__allow=["10.0.0.1/8"], access__keys=["readiness"]
    )
    del block["model"]
    found = mistakes(block)
    assert len(found) == 5
    assert "server.model: missing; add it" in found
    assert "server.machine.bilng: unknown key; did you mean billing?" in found
    assert any(one.startswith("server.context: '3Q' is not tokens") for one in found)
    assert any(one.startswith("server.access.allow.0: 10.0.0.1/8 has host bits set") for one in found)
    assert any(one.startswith("server.access.keys: 'readiness' is the name") for one in found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "mistral-smal-4"}, "server.model: 'mistral-smal-4' is not in the catalogue; did you mean"),
        ({"machine__gpu": "H20"}, "server.machine.gpu: 'H20' is not in the catalogue; did you mean H200?"),
        (
            {"precision": "int4"},
            "server.precision: mistral-small-4 is not published in 'int4'; known are fp8",
        ),
        ({"context": "1Mi"}, "server.context: 1,048,576 tokens are beyond"),
        ({"engine__version": "0.32.0-cpu"}, "server.engine.version: 0.32.0-cpu does not run on H200"),
        ({"profile": "long"}, "server.profile: says the same as server.concurrency"),
        ({"machine__count": 0}, "server.machine.count: 0 with gpu H200"),
        ({"machine__fallback": "on-demand"}, "server.machine.fallback: only means something"),
        (
            {"machine__billing": "monthly"},
            "server.machine.billing: 'monthly' is not allowed; write on-demand or",
        ),
        ({"access__keys": ["a", "a"]}, "server.access.keys: 'a' appears twice"),
        ({"storage": "900000TB"}, "server.storage: '900000TB' is out of range; write at most 64000"),
        ({"storage": "100GB"}, "server.storage: 100 GB are less than the 1"),
        ({"concurrency": 10**9}, "server.concurrency: 1000000000 is out of range; write at most 2048"),
        (
            {"gateway__streams_per_key": 2049},
            "server.gateway.streams_per_key: 2049 is out of range; write at most 2048",
        ),
        (
            {"gateway__answer_timeout_s": 3601},
            "server.gateway.answer_timeout_s: 3601 is out of range; write at most",
        ),
        ({"concurrency": "many"}, "server.concurrency: 'many' is not a whole number; write a whole number"),
        ({"machine__count": "two"}, "server.machine.count: 'two' is not a whole number"),
        ({"machine__count": 99}, "server.machine.count: 99 is out of range; write at most 8"),
        ({"machine__max_usd_per_hour": float("inf")}, "server.machine.max_usd_per_hour: inf is "),
        (
            {"machine__max_usd_per_hour": -1},
            "server.machine.max_usd_per_hour: -1 is out of range; write more",
        ),
        ({"machine": "H200"}, "server.machine: 'H200' is not a block of keys; write a block of keys"),
        ({"access__allow": "203.0.113.0/24"}, "server.access.allow: '203.0.113.0/24' is not a list"),
        ({"access__allow": []}, "server.access.allow: is empty; write at least one"),
        ({"access__allow": ["everyone"]}, "server.access.allow.0: 'everyone' does not appear to be an IPv4"),
        ({"model": 7}, "server.model: 7 is not text; write text"),
        ({"context": -5}, "server.context: -5 is not tokens"),
        ({"weights__endpoint": "ftp://x"}, "server.weights.endpoint: 'ftp://x' is not allowed"),
        (
            {"engine__ignore": {"dtpe": "why"}},
            "server.engine.ignore.dtpe: 'dtpe' is not in the catalogue; did you",
        ),
        ({"engine__flags": {"port": 1}}, "server.engine.flags.port: not decided here; the engine stays"),
        (
            {"engine__flags": {"--dtype": "auto"}},
            "server.engine.flags.--dtype: written with dashes; write dtype",
        ),
        (
            {"engine__flags": {"moe_backend": "x"}},
            "server.engine.flags.moe_backend: not a flag of vLLM; did you",
        ),
        ({"storage": True}, "server.storage: True is not a size"),
        ({"access__hostname": "192.0.2.7"}, "server.access.hostname: '192.0.2.7' is no DNS name; write one"),
        ({"access__hostname": "https://a.b"}, "server.access.hostname: 'https://a.b' is no DNS name"),
        (
            {"gateway__request_timeout_s": 0},
            "server.gateway.request_timeout_s: 0 is out of range; write at least 1",
        ),
        (
            {"gateway__answer_timeout_s": "long"},
            "server.gateway.answer_timeout_s: 'long' is not a whole number",
        ),
        ({"gateway__timeout_s": 5}, "server.gateway.timeout_s: unknown key; did you mean"),
    ],
)
def test_one_mistake(change, sentence):
    (found,) = mistakes(altered(**change))
    assert found.startswith(sentence)


def test_a_mistake_hides_no_other():
    block = altered(
        modle="x",
        precision="fp7",
        context="2Mi",
        storage="90GB",
        machine__gpu="H2000",
        machine__count="two",
        machine__fallback="on-demand",
        access__allow=["everybody", "10.0.0.0/8"],
        access__keys=["a", "b", "a"],
        engine__flags={"port": 1},
    )
    found = mistakes(block)
    for wanted in (
        "server.modle: unknown key; did you mean model?",
        "server.precision: mistral-small-4 is not published in 'fp7'",
        "server.context: 2,097,152 tokens are beyond",
        "server.machine.gpu: 'H2000' is not in the catalogue; did you mean H200?",
        "server.machine.count: 'two' is not a whole number",
        "server.machine.fallback: only means something",
        "server.access.allow.0: 'everybody'",
        "server.access.keys: 'a' appears twice",
        "server.engine.flags.port: not decided here",
    ):
        assert any(one.startswith(wanted) for one in found), (wanted, found)
    assert len(found) == len(set(found)) == 9
    # The disk can't be judged without a precision and a machine.
    with_disk = mistakes(altered(storage="90GB", context="2Mi", access__allow=["everybody"]))
    assert [one.partition(":")[0] for one in with_disk] == [
        "server.access.allow.0", "server.context", "server.storage",
    ]  # fmt: skip


def test_what_stands_where_names_belong_may_be_a_secret_and_is_not_shown():
    for keys in ({"team-a": "sk-Geheim0815geheim"}, ["sk-Geheim0815geheim"], "sk-Geheim0815geheim"):
        (found,) = mistakes(altered(access__keys=keys))
        assert found.startswith("server.access.keys")
        assert "Geheim" not in found


@pytest.mark.parametrize("block", ["mistral-small-4", ["model"], 5, None])
def test_a_block_that_is_no_block(block):
    (found,) = mistakes(block)
    assert found.startswith("server: ")
    assert "is not a block of keys" in found
