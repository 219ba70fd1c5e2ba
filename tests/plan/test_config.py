"""The stack file's block: units, defaults, and every error at once."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import (
    Deployment,
    PlanError,
    catalogue,
    config_errors,
    key_limits,
    plan,
    stack_file_keys,
)
from pulumi_vllm.plan import quantities as units
from pulumi_vllm.plan.gpu_schema import GpuFile
from pulumi_vllm.plan.model_schema import ModelFile

GOOD = yaml.safe_load("""
model: mistral-small-4
context: 32Ki
concurrency: 256
machine: {gpu: H200, count: 2, max_usd_per_hour: 9}
storage: 300GB
access: {allow: [9.9.9.0/24], keys: [team-a]}
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


def errors(block: dict) -> tuple[str, ...]:
    with pytest.raises(PlanError) as refusal:
        plan(Deployment.parse(block))
    return refusal.value.errors


def test_units_and_defaults():
    deployment = Deployment.parse(GOOD)
    assert deployment.context == 32_768
    assert deployment.storage_gb == 300
    assert deployment.access.ssh == ("9.9.9.0/24",)
    assert deployment.machine.billing == "on-demand"
    assert deployment.weights.endpoint == "https://huggingface.co"


def test_the_default_rate_limit_exceeds_every_measured_rate():
    # With several engines a stack file says what a key may do: more clients than one engine serves are behind them.
    measured = [one for one in catalogue.load().measured if one.engines == 1]
    # Each answer has 256 tokens.
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


def test_every_error_is_reported_at_once():
    block = altered(
        machine__bilng="spot", context="3Q", access__allow=["10.0.0.1/8"], access__keys=["readiness"]
    )
    del block["model"]
    found = errors(block)
    assert len(found) == 5
    assert "server.model: missing; add it" in found
    assert "server.machine.bilng: unknown key; did you mean billing?" in found
    assert any(one.startswith("server.context: '3Q' is not tokens") for one in found)
    assert any(one.startswith("server.access.allow.0: 10.0.0.1/8 has host bits set") for one in found)
    assert any(one.startswith("server.access.keys: 'readiness' is the key") for one in found)


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
        ({"profile": "long"}, "server.profile: sets the same as server.concurrency"),
        ({"machine__count": 0}, "server.machine.count: 0 with gpu H200"),
        ({"machine__fallback": "on-demand"}, "server.machine.fallback: has no effect without"),
        (
            {"machine__billing": "monthly"},
            "server.machine.billing: 'monthly' is not allowed; write on-demand or",
        ),
        ({"access__keys": ["a", "a"]}, "server.access.keys: 'a' appears twice"),
        ({"access__keys": [{"name": "a"}, "a"]}, "server.access.keys: 'a' appears twice"),
        ({"access__keys": [{"priority": "low"}]}, "server.access.keys.0.name: missing; add it"),
        (
            {"access__keys": [{"name": "a", "prioity": 1}]},
            "server.access.keys.0.prioity: unknown key; did you mean priority",
        ),
        ({"access__keys": [{"name": "a", "priority": 1}]}, "server.access.keys.0.priority: this is not text"),
        (
            {"access__keys": ["b", {"name": "a", "priority": "urgent"}]},
            "server.access.keys.1.priority: this is not allowed; write high or normal or low",
        ),
        (
            {"access__keys": [{"name": "a", "concurrent": 0}]},
            "server.access.keys.0.concurrent: this is out of range; write at least 1",
        ),
        (
            {"access__keys": [{"name": "a", "tokens_per_minute": "100k"}]},
            "server.access.keys.0.tokens_per_minute: this is not a whole number; write a whole number",
        ),
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
        ({"machine__count": True}, "server.machine.count: true is not a whole number; write a whole number"),
        ({"machine__engines": True}, "server.machine.engines: true is not a whole number"),
        ({"machine__max_usd_per_hour": True}, "server.machine.max_usd_per_hour: true is not a number"),
        (
            {"machine__gpu": 7},
            "server.machine.gpu: 7 is neither a GPU nor a list of GPUs; write for example H200",
        ),
        ({"machine__gpu": None}, "server.machine.gpu: is empty; write a GPU"),
        ({"machine__count": 99}, "server.machine.count: 99 is out of range; write at most 8"),
        ({"machine__max_usd_per_hour": float("inf")}, "server.machine.max_usd_per_hour: inf is "),
        (
            {"machine__max_usd_per_hour": -1},
            "server.machine.max_usd_per_hour: -1 is out of range; write more",
        ),
        ({"machine": "H200"}, "server.machine: 'H200' is not a block of keys; write a block of keys"),
        (
            {"access__allow": "9.9.9.0/24"},
            "server.access.allow: '9.9.9.0/24' is not a list; write a list, for example [a, b]",
        ),
        ({"access__allow": []}, "server.access.allow: is empty; write at least one"),
        ({"access__allow": ["everyone"]}, "server.access.allow.0: 'everyone' does not appear to be an IPv4"),
        ({"model": 7}, 'server.model: 7 is not text; write text, in quotes: "7"'),
        ({"context": -5}, "server.context: -5 is not tokens"),
        ({"weights__endpoint": "ftp://x"}, "server.weights.endpoint: 'ftp://x' is not allowed"),
        (
            {"engine__ignore": {"dtpe": "why"}},
            "server.engine.ignore.dtpe: 'dtpe' is not a lint rule; did you",
        ),
        ({"engine__flags": {"port": 1}}, "server.engine.flags.port: cannot be set here; the engine stays"),
        (
            {"engine__flags": {"middleware": "x.Y"}},
            "server.engine.flags.middleware: cannot be set here; this package",
        ),
        (
            {"engine__flags": {"allowed-media-domains": "x"}},
            "server.engine.flags.allowed-media-domains: cannot be set here; set server.gateway.media_domains",
        ),
        ({"aliases": ["../x"]}, "server.aliases.0: '../x' is not a model name; write up to four"),
        ({"aliases": ["a b"]}, "server.aliases.0: 'a b' is not a model name"),
        (
            {"gateway__cors_origins": ["*"]},
            "server.gateway.cors_origins.0: '*' is not an origin; write scheme and host",
        ),
        (
            {"gateway__cors_origins": ["https://a.example/"]},
            "server.gateway.cors_origins.0: 'https://a.example/' is not an origin",
        ),
        (
            {"gateway__media_domains": ["https://a.example"]},
            "server.gateway.media_domains.0: 'https://a.example' is not a",
        ),
        ({"requests__reasoning_efforts": {"huge": "none"}}, "server.requests.reasoning_efforts.huge"),
        ({"requests__choices": 0}, "server.requests.choices: 0 is out of range"),
        (
            {"engine__flags": {"--dtype": "auto"}},
            "server.engine.flags.--dtype: is written with dashes; write dtype",
        ),
        (
            {"engine__flags": {"moe_backend": "x"}},
            "server.engine.flags.moe_backend: is not a flag of vLLM; did you",
        ),
        ({"storage": True}, "server.storage: true is not a size"),
        ({"storage": None}, "server.storage: is empty; write a size, for example 300GB or 1TB"),
        ({"context": None}, "server.context: is empty; write tokens, for example 32768 or 32Ki"),
        (
            {"access__hostname": "192.0.2.7"},
            "server.access.hostname: '192.0.2.7' is not a DNS name; write one",
        ),
        ({"access__hostname": "https://a.b"}, "server.access.hostname: 'https://a.b' is not a DNS name"),
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
def test_an_error_names_the_path_and_the_remedy(change, sentence):
    (found,) = errors(altered(**change))
    assert found.startswith(sentence)


def test_an_error_hides_no_other_error():
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
    found = errors(block)
    for wanted in (
        "server.modle: unknown key; did you mean model?",
        "server.precision: mistral-small-4 is not published in 'fp7'",
        "server.context: 2,097,152 tokens are beyond",
        "server.machine.gpu: 'H2000' is not in the catalogue; did you mean H200?",
        "server.machine.count: 'two' is not a whole number",
        "server.machine.fallback: has no effect without",
        "server.access.allow.0: 'everybody'",
        "server.access.keys: 'a' appears twice",
        "server.engine.flags.port: cannot be set here",
    ):
        assert any(one.startswith(wanted) for one in found), (wanted, found)
    assert len(found) == len(set(found)) == 9
    # The size of the volume cannot be checked without a precision and a machine.
    with_storage = errors(altered(storage="90GB", context="2Mi", access__allow=["everybody"]))
    assert [one.partition(":")[0] for one in with_storage] == [
        "server.context", "server.access.allow.0", "server.storage",
    ]  # fmt: skip


def test_a_bare_name_is_a_key_without_limits_of_its_own():
    batch = {"name": "batch", "priority": "low", "tokens_per_minute": 100_000}
    parsed = Deployment.parse(altered(access__keys=["team-a", {"name": "team-b"}, batch], concurrency=100))
    assert parsed.access.key_names == ("team-a", "team-b", "batch")
    assert parsed.access.model_dump()["keys"] == ("team-a", "team-b", batch)
    found = {one.name: one for one in key_limits.key_limits(parsed)}
    assert found["batch"] == key_limits.KeyLimits("batch", 6000, 75, 100_000, 1)
    assert found["team-a"] == key_limits.KeyLimits("team-a", 6000, 94, None, 0)
    assert found.keys() == {"team-a", "team-b", "batch", "readiness"}
    several = altered(
        access__keys=[batch, batch | {"name": "b2"}, batch | {"name": "b3", "concurrent": 9}], concurrency=100
    )
    assert [one.concurrent for one in key_limits.key_limits(Deployment.parse(several))] == [25, 25, 9, 94]


def test_vllm_orders_by_priority_only_where_a_key_has_one():
    for priority, policy in (("low", "priority"), ("high", "priority"), ("normal", None)):
        planned = plan(Deployment.parse(altered(access__keys=[{"name": "a", "priority": priority}])))
        assert planned.arguments.flags.get("scheduling-policy") == policy


def test_a_long_prompt_leaves_room_for_others_where_a_key_has_a_priority():
    flag, keys = "long-prefill-token-threshold", [{"name": "a", "priority": "low"}]
    for changes, wanted in (
        ({"access__keys": keys}, 256),
        ({"access__keys": ["a", "b"]}, None),
        ({"access__keys": keys, "engine": {"version": "0.26.0"}}, None),
        ({"access__keys": keys, "engine": {"version": "0.33.0", "flags": {flag: 1024}}}, 1024),
    ):
        server = altered(**({"engine": {"version": "0.33.0"}} | changes))
        assert plan(Deployment.parse(server)).arguments.flags.get(flag) == wanted, changes


def test_a_value_under_keys_may_be_a_secret_and_is_not_shown():
    for keys in ({"team-a": "sk-Geheim0815geheim"}, ["sk-Geheim0815geheim"], "sk-Geheim0815geheim"):
        (found,) = errors(altered(access__keys=keys))
        assert found.startswith("server.access.keys")
        assert "Geheim" not in found


def patterns(schema):
    """Every pattern in a JSON Schema, but those of numbers with units, which are read by our own code."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str) and not schema["pattern"].startswith(r"^\s*"):
            yield schema["pattern"]
        for below in schema.values():
            yield from patterns(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from patterns(below)


@pytest.mark.parametrize("block", [Deployment, GpuFile, ModelFile])
def test_what_a_text_may_be_is_said_in_words(block):
    found = set(patterns(block.model_json_schema()))
    assert found
    for pattern in found:
        words = config_errors.allowed(pattern)
        assert not set(words) & set("^$[]{}|+?*"), words
        assert words.startswith("write ")


@pytest.mark.parametrize("block", ["mistral-small-4", ["model"], 5, None])
def test_something_else_than_a_block_is_refused(block):
    (found,) = errors(block)
    assert found.startswith("server: ")
    assert "is not a block of keys" in found


def test_every_key_has_a_description_and_says_what_a_change_does():
    keys = list(stack_file_keys.keys())
    assert {"context", "storage", "machine.gpu", "engine.flags", "drain_timeout_s"} <= {
        key.path for key in keys
    }
    for key in keys:
        assert key.description.endswith((".", ")")), key
        assert key.change, key
        assert key.type, key


def test_a_block_is_validated_against_the_catalogue_only():
    with pytest.raises(TypeError, match=r"call Deployment\.parse"):
        Deployment.model_validate(GOOD)


def test_how_long_a_machine_is_needed():
    deployment = Deployment.parse(
        altered(
            expires="2d", idle_stop="90m", owner="ana", schedule={"up": "0 7 * * 1-5", "down": "0 20 * * 1-5"}
        )
    )
    assert (deployment.expires, deployment.idle_stop, deployment.owner) == (172_800, 5_400, "ana")
    assert deployment.schedule.hours_per_month == pytest.approx(261 * 13 / 12)
    assert Deployment.parse(GOOD).schedule.hours_per_month is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expires": 8}, "server.expires: 8 is not a time with its unit, for example 90m, 8h or 2d"),
        ({"expires": "10m"}, "server.expires: '10m' is out of range; write 30m to 366d"),
        ({"idle_stop": "never"}, "server.idle_stop: 'never' is not a time with its unit, for example 90m, 8h or 2d"),
        (
            {"owner": "Ana Kovac"},
            "server.owner: 'Ana Kovac' is not allowed; write up to 8 lower-case letters and digits, a letter first",
        ),
        (
            {"machine__keep_failed": "perhaps"},
            "server.machine.keep_failed: 'perhaps' is not true or false; write true or false",
        ),
        ({"schedule": {"up": "0 7 * * *"}}, "server.schedule: has up only; add down"),
        (
            {"schedule": {"up": "0 7 * * *", "down": "0 7 * * *"}},
            "server.schedule: up and down fire at the same times; write other ones",
        ),
        (
            {"schedule": {"up": "7:00", "down": "0 20 * * *"}},
            ("server.schedule.up: '7:00' has 1 fields; write five: minute, hour, day, month, weekday, such as "
            "0 7 * * 1-5"),
        ),
    ],
)  # fmt: skip
def test_a_wrong_time_is_refused_with_what_to_write(changes, message):
    assert errors(altered(**changes)) == (message,)
