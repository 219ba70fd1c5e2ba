"""Flags of a stack file that belong to the product, hold secrets, were removed, or have values that vLLM lacks."""

import json

import pytest
from pulumi_vllm.plan import ConfigError, Deployment, LintError, plan, product_flags, vllm_parser
from pulumi_vllm.plan.planner import findings

TOKEN = "hf_" + "aB3" * 12


def deployment(flags, ignore=None, **engine):
    return Deployment.parse(
        {
            "model": "mistral-small-4",
            "context": "32Ki",
            "machine": {"gpu": "H200", "count": 2, "max_usd_per_hour": 9},
            "storage": "300GB",
            "engine": {"flags": flags, "ignore": ignore or {}, **engine},
        }
    )


def errors(flags, **engine):
    found = findings(deployment(flags, **engine))
    return [(one.rule, one.message) for one in found if one.severity == "error"]


@pytest.mark.parametrize(
    "flag",
    [
        "uds", "headless", "grpc", "ssl-keyfile", "no-headless", "root-path", "middleware", "config", "master-addr",
        "hf-token", "api-server-count", "h11-max-header-count", "h11-max-incomplete-event-size", "device-ids", "runner",
        "convert", "mm-encoder-only",
    ],
)  # fmt: skip
def test_the_products_flags_cannot_be_set(flag):
    with pytest.raises(ConfigError, match=f"server.engine.flags.{flag}: cannot be set here; "):
        deployment({flag: "x"})


def test_every_flag_of_the_product_exists_in_a_version():
    known = {name for version in vllm_parser.versions() for name in vllm_parser.accepted(version)}
    hidden = {"worker-cls", "worker-extension-cls", "scheduler-cls"}
    owned = {
        *product_flags.LISTENING,
        *product_flags.LOADING,
        *product_flags.SECRETS,
        *product_flags.STACK_KEYS,
        *product_flags.OF_THE_MODEL,
    }
    assert owned - hidden <= known | {"logging-config", "grpc-port"}


@pytest.mark.parametrize(
    ("flags", "rule", "words"),
    [
        ({"load-format": "dummy"}, "loads-from-elsewhere", "serves random weights; leave it out"),
        ({"load-format": "runai_streamer"}, "loads-from-elsewhere", "does not load the files of the volume"),
        ({"allowed-local-media-path": "/"}, "loads-from-elsewhere", "clients could read files of the host"),
        ({"revision": "main"}, "loads-from-elsewhere", "the weights are pinned"),
        ({"tool-parser-plugin": "/x.py"}, "loads-from-elsewhere", "it runs code that no pinned package holds"),
        ({"disable-log-requests": True}, "unknown-flag", "write enable-log-requests: false"),
        ({"enable-reasoning": True}, "unknown-flag", "leave it out, reasoning-parser alone enables it"),
        ({"swap-space": 4}, "unknown-flag", "a preempted request is always computed again"),
        ({"guided-decoding-backend": "x"}, "unknown-flag", "use structured-outputs-config with the key backend"),
        ({"tool-call-parser": "mistrel"}, "invalid-value", "did you mean mistral?"),
        ({"reasoning-parser": "deepseek"}, "invalid-value", "is not one of its values"),
        ({"attention-backend": "XFORMERS"}, "invalid-value", "is not one of its values"),
        ({"distributed-executor-backend": "threads"}, "invalid-value", "known are external_launcher, mp, ray, uni"),
        ({"distributed-executor-backend": "ray"}, "conflicting-flags", "needs Ray, which is not installed"),
        ({"load-format": "gguf"}, "invalid-value", "is not one of its values"),
        ({"quantization": "q4"}, "quantization", "vLLM has no such method"),
        ({"quantization": "fp_quant"}, "quantization", "is deprecated, and vLLM does not start"),
        ({"optimization-level": 7}, "invalid-value", "known are 0, 1, 2, 3"),
        ({"block-size": 24}, "block-size", "use 16 or 32"),
        ({"max-logprobs": -2}, "out-of-range", "write -1 or more"),
        ({"watermark": 1.5}, "out-of-range", "write less than 1"),
        ({"compilation-config": {"modee": 3}}, "invalid-value", "has no key modee; did you mean mode"),
        ({"structured-outputs-config": {"backend": "x"}}, "invalid-value", "backend is not one of its values"),
        ({"eplb-config": {"window_size": 0}}, "invalid-value", "window_size is out of range; write more than 0"),
        ({"media-io-kwargs": 7}, "invalid-value", "is not a JSON object"),
        ({"cudagraph-capture-sizes": "1 two 4"}, "invalid-value", "is not a whole number"),
        ({"seed": [1, 2]}, "invalid-value", "is not a whole number"),
        ({"enable-log-outputs": True}, "conflicting-flags", "without --enable-log-requests is refused"),
        ({"numa-bind-nodes": [0]}, "conflicting-flags", "without --numa-bind is refused"),
    ],
)  # fmt: skip
def test_a_flag_that_ends_the_start_is_an_error(flags, rule, words):
    (found,) = errors(flags)
    assert found[0] == rule
    assert words in found[1]


def test_a_mapping_is_json_and_a_list_is_words():
    decided = plan(deployment({"limit-mm-per-prompt": {"image": 4}, "cudagraph-capture-sizes": [1, 2, 512]}))
    assert json.loads(decided.argv[decided.argv.index("--limit-mm-per-prompt") + 1]) == {"image": 4}
    at = decided.argv.index("--cudagraph-capture-sizes")
    assert decided.argv[at + 1 : at + 4] == ("1", "2", "512")


@pytest.mark.parametrize("value", [[{"a": 1}], [], None, {"at": {1, 2}}])
def test_another_value_is_answered_by_one_sentence(value):
    with pytest.raises(ConfigError) as refusal:
        deployment({"limit-mm-per-prompt": value})
    (message,) = refusal.value.errors
    assert message.startswith("server.engine.flags.limit-mm-per-prompt: is ")


def test_a_removed_flag_is_gone_and_its_remedy_is_there():
    for version in vllm_parser.versions():
        known = vllm_parser.accepted(version)
        for name, remedy in vllm_parser.removed_flags().items():
            if name in known:
                continue
            named = [word.removeprefix("no-") for word in remedy.replace(",", "").split() if "-" in word]
            assert set(named) <= known.keys(), (version, name, remedy)


def test_no_suggestion_is_the_opposite_of_what_was_written():
    for version in vllm_parser.versions():
        known = vllm_parser.accepted(version)
        for name in known:
            head, _, rest = name.partition("-")
            opposite = {"enable": "disable", "disable": "enable"}.get(head)
            if opposite and f"{opposite}-{rest}" not in known and known[name].get("opposite") is None:
                (message,) = vllm_parser.unknown({f"{opposite}-{rest}": True}, version)
                assert f"did you mean {name}" not in message


@pytest.mark.parametrize(
    "flags",
    [
        {"model-loader-extra-config": {"aws_secret": "abc123secret"}},
        {"additional-config": {"api_key": "abc123secret"}},
        {"chat-template": f"/models/{TOKEN}"},
        {"seed": TOKEN},
        {"kv-transfer-config": {"kv_connector_extra_config": {"password": "abc123secret"}}},
    ],
)
def test_a_secret_in_a_flag_is_an_error_and_is_not_printed(flags):
    with pytest.raises(LintError) as refusal:
        plan(deployment(flags))
    text = " ".join(refusal.value.errors)
    assert "holds a secret" in text
    assert "abc123secret" not in text
    assert TOKEN not in text


def test_the_value_of_a_refused_secret_is_not_printed():
    for flag in product_flags.SECRETS:
        with pytest.raises(ConfigError) as refusal:
            deployment({flag: TOKEN})
        assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize("flag", ["trust-remote-code", "trust-request-chat-template", "enable-mm-embeds"])
def test_trust_is_a_finding(flag):
    found = findings(deployment({flag: True}))
    assert [one.severity for one in found if one.rule == "trusted-input"] == ["warning"]


def test_an_ignored_error_still_plans():
    plan(deployment({"load-format": "dummy"}, ignore={"loads-from-elsewhere": "a load test without weights"}))


def test_the_opposite_of_a_switch_is_switched_off():
    """0.33.0 accepts --disable-x for --enable-x."""
    assert vllm_parser.parse(["--disable-log-requests"], "0.33.0") == {"enable-log-requests": False}
    assert vllm_parser.parse(["--no-enable-prefix-caching"], "0.33.0") == {"enable-prefix-caching": False}
    (message,) = vllm_parser.unknown({"disable-log-requests": True}, "0.33.0")
    assert (
        message
        == "--disable-log-requests is the opposite of enable-log-requests; write enable-log-requests: false"
    )
    assert errors({"enable-prefix-caching": False}, version="0.33.0") == []
