"""What tokens cost for a mix of prompts and answers, and at a utilization below 1."""

import dataclasses
import json
import re

import pytest
from blocks import STACKS, block_of
from pulumi_vllm.cli import main
from pulumi_vllm.plan import Deployment, catalogue, explain, plan, pricing, reasons
from pulumi_vllm.plan.prompt_lengths import Lengths
from pulumi_vllm.plan.token_prices import MEASURED, Mix, token_price

STACK = "spheron-h200-1x-fp8"


def decided(stack=STACK, **changed):
    return plan(Deployment.parse(block_of(stack) | changed))


@pytest.mark.parametrize("stack", sorted(set(STACKS) - {"local", "spheron-h100-4x-fp8"}))
def test_the_measured_load_has_the_measured_price(stack):
    one = decided(stack)
    found = token_price(one, Mix())
    assert found.usd_per_million_output() == pytest.approx(one.usd_per_million_output_tokens)
    assert found.requests_per_s * pricing.MEASURED_OUTPUT == pytest.approx(one.rate.tokens_per_s)
    assert not found.unmeasured
    assert 0.1 < found.input_share < 0.6
    per_input, per_output = found.usd_per_million_apart
    paid = per_input * pricing.MEASURED_INPUT + per_output * pricing.MEASURED_OUTPUT
    assert paid == pytest.approx(found.usd_per_million_output() * pricing.MEASURED_OUTPUT)


def test_an_unknown_rate_of_several_engines_says_so():
    """TP 2 was measured on this machine with that version, and two engines were not."""
    found = token_price(decided("spheron-h200-2x-fp8-batch", engine={"version": "0.26.0"}), Mix())
    assert found.endswith("was measured with this model and precision on such a machine with 2 engines")


@pytest.mark.parametrize(("stack", "version"), [("local", "0.32.0-cpu"), ("spheron-h100-4x-fp8", "0.26.0")])
def test_without_a_measured_rate_there_is_no_price(stack, version):
    assert token_price(decided(stack), Mix()) == (
        f"no rate of vLLM {version} was measured with this model and precision on such a machine"
    )


def test_a_long_prompt_costs_what_its_seconds_cost():
    """A prompt of 261,000 tokens took 38.5 s on this machine (lab/notes/performance.md)."""
    found = token_price(decided(), Mix(261_000, 1))
    assert found.prompt_s == pytest.approx(38.5, rel=0.01)
    assert found.usd_per_million_output() / 1e6 == pytest.approx(3.96 / 3600 * 38.5, rel=0.01)


def test_a_length_between_two_measured_ones_is_interpolated():
    """Held out: 65,000 and 130,500 tokens were measured with vLLM 0.26.0 on the same machine."""
    run = next(
        one for one in catalogue.load().measured if {512, 65_000, 130_500, 261_000} <= set(one.prompt_rates)
        and (one.gpu, one.count, one.precision) == ("H200", 1, "fp8")
    )  # fmt: skip
    ends = Lengths(
        *(
            {length: figures[length] for length in (512, 261_000)}
            for figures in (run.prompt_rates, run.token_ms)
        )
    )
    for tokens in (65_000, 130_500):
        assert ends.prompt_s(tokens) == pytest.approx(tokens / run.prompt_rates[tokens], rel=0.15)
        slower = (run.token_ms[tokens] - run.token_ms[512]) / 1000
        assert ends.longer_token_s(tokens, 512) == pytest.approx(slower, rel=0.15)


def test_a_length_above_the_longest_measured_one_goes_on_growing():
    """Attention makes the time per token grow; the longest one's rate would be too high for what lies above."""
    known = Lengths({512: 40_000, 65_000: 16_000, 130_500: 12_000}, {512: 4.0, 65_000: 6.0, 130_500: 8.0})
    assert known.prompt_s(261_000) / 261_000 > 1.2 / 12_000
    assert known.longer_token_s(261_000, 512) == pytest.approx(0.008, rel=0.02)
    assert known.longer_token_s(100, 512) == 0
    assert known.prompt_s(1) == 1 / 40_000


def test_several_engines_read_as_fast_as_so_many_alone():
    """Long prompts were measured on one engine with one card only: two such engines read two at once."""
    one, two = decided(), decided("spheron-h200-2x-fp8-batch")
    assert two.lengths.one_engine
    assert two.lengths.prompt_s(65_000) == pytest.approx(one.lengths.prompt_s(65_000) / 2)
    assert two.lengths.longer_token_s(65_000, 512) == pytest.approx(
        one.lengths.longer_token_s(65_000, 512) / 2, rel=0.02
    )
    mix = Mix(20_000, 400)
    assert token_price(two, mix).usd_per_million_output() == pytest.approx(
        token_price(one, mix).usd_per_million_output(), rel=0.12
    )


def test_a_long_request_makes_every_step_longer():
    """Alone behind 261,000 tokens, a token took 12.2 ms where it takes 4.2 behind 512."""
    behind, short = token_price(decided(), Mix(250_000, 1_000)), token_price(decided(concurrency=3), Mix())
    assert behind.streams == short.streams == 3
    assert behind.answer_s / 1_000 - short.answer_s / 256 == pytest.approx(0.0077, rel=0.03)


def test_one_short_prompt_at_a_time_is_not_read_as_fast_as_many():
    """Measured: 512 tokens and one token of answer took 46 ms where nothing else was asked."""
    found = token_price(decided(concurrency=1), Mix(512, 1))
    assert found.prompt_s + found.answer_s == pytest.approx(0.046, rel=0.2)


def test_longer_prompts_and_answers_cost_more_and_fewer_fit():
    base = token_price(decided(), Mix())
    for mix in (Mix(2_000, 256), Mix(512, 2_000), Mix(100_000, 256)):
        found = token_price(decided(), mix)
        assert found.requests_per_s < base.requests_per_s
        assert found.streams <= base.streams
    assert token_price(decided(), Mix(100_000, 256)).streams == 8


@pytest.mark.parametrize(("asked", "machines", "used"), [(3.3, 1, 0.1), (32.0, 1, 0.97), (50.0, 2, 0.76)])
def test_requests_per_second_say_how_busy_how_many_machines_are(asked, machines, used):
    found = token_price(decided(), Mix(requests_per_s=asked)).summary()
    assert (found["machines"], found["utilization"]) == (machines, pytest.approx(used, abs=0.01))
    busy = found["usd_per_million_output_tokens"]["100%"]
    assert found["usd_per_million_output_tokens_asked"] == pytest.approx(busy / used, rel=0.02)
    assert found["usd_per_million_output_tokens"]["10%"] == pytest.approx(busy * 10, rel=0.01)


def test_what_lies_outside_of_all_that_was_measured_says_so():
    one = decided()
    short = dataclasses.replace(
        one, lengths=Lengths({512: 40_000.0, 2_000: 39_000.0}, {512: 4.0, 2_000: 4.1})
    )
    found = token_price(short, Mix(10_000, 100))
    assert "No prompt above 2,000 tokens was measured." in found.sentences()
    assert found.summary()["extrapolated"]
    found = token_price(one, Mix(1, 1))
    assert "No more than 33.00 requests/s were measured." in found.sentences()[-1]
    assert found.summary()["extrapolated"]
    found = token_price(one, Mix(20_000, 400))
    assert not found.summary()["extrapolated"]


def test_prompts_of_one_length_say_nothing_of_another():
    one = decided()
    single = dataclasses.replace(one, lengths=Lengths({512: 40_000.0}, {512: 4.0}))
    assert token_price(single, Mix()).usd_per_million_output() == pytest.approx(0.13, abs=0.01)
    assert token_price(single, Mix(10_000, 100)) == (
        "only prompts of one length were measured on such a machine"
    )


def test_a_price_says_which_measurements_it_is_from():
    def sources(stack=STACK, mix=MEASURED, **changed):
        return token_price(decided(stack, **changed), mix).source

    assert sources() == "Computed from the rate with these flags at 512 streams."
    assert sources(concurrency=100) == (
        "Computed from the rate with other flags at 32 and 128 streams, interpolated."
    )
    assert "partly measured with vLLM 0.26.0." in sources(mix=Mix(20_000, 400))
    assert "and one engine on its part of the GPUs." in sources("spheron-h200-2x-fp8-batch", Mix(20_000, 400))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"enforce-eager": True}, "--enforce-eager"),
        ({"max-num-batched-tokens": 512}, "--max-num-batched-tokens 512"),
        ({"seed": 1, "enable-prefix-caching": False}, "--no-enable-prefix-caching"),
        ({"cpu-offload-gb": 4, "block-size": 128}, "--cpu-offload-gb 4, --block-size 128"),
    ],
)
def test_flags_that_may_make_a_step_longer_have_no_price_of_runs_without_them(flags, named):
    """enforce-eager makes a step about three times as long, and had the rate of a run with CUDA graphs."""
    one = decided(engine={"version": "0.33.0", "flags": flags})
    assert token_price(one, Mix()) == f"no rate was measured with {named}"
    assert (one.rate, one.usd_per_million_output_tokens) == (None, None)
    assert explain.labels(one)["usd_per_million_output_tokens"].endswith(f"no rate was measured with {named}")
    assert "per million output tokens" not in " ".join(reasons.because(one))


@pytest.mark.parametrize(
    "flags", [{"seed": 1}, {"enable-log-requests": True}, {"gpu-memory-utilization": 0.93}]
)
def test_flags_that_change_no_step_have_the_measured_rate_and_say_so(flags):
    one = decided(engine={"version": "0.33.0", "flags": flags})
    assert one.rate.tokens_per_s == decided().rate.tokens_per_s
    assert "Computed from the rate with other flags at 512 streams." in token_price(one, Mix()).sentences()
    assert ", measured, with other flags)." in " ".join(reasons.because(one))


def test_a_flag_that_the_measured_run_had_too_changes_nothing():
    one = decided("spheron-h200-2x-fp8", engine={"version": "0.33.0", "flags": {"tensor-parallel-size": 2}})
    assert (one.measured, one.without_rate) == ("yes", ())
    assert decided(engine={"version": "0.33.0", "flags": {"moe-backend": "triton"}}).without_rate == ()


def test_a_request_lies_in_the_cache_of_one_engine():
    """Two caches of 836,552 tokens hold five requests of 150,400 each, though both together hold eleven."""
    found = token_price(decided("spheron-h200-2x-fp8-batch"), Mix(150_000, 400))
    assert found == "the KV cache holds 10 requests of 150,400 tokens, and no rate was measured at so few"
    few = token_price(decided("spheron-h200-2x-fp8-batch", concurrency=16), Mix())
    assert few == "the stack serves 16 requests at once, and no rate was measured at so few"


@pytest.mark.parametrize("utilization", [0.95, 0.88, 0.86])
def test_the_first_price_is_for_as_many_requests_as_the_cache_holds(utilization):
    """At 0.86 the cache holds 325 requests of the measured load, and the stack had the price of 512."""
    flags = {"gpu-memory-utilization": utilization}
    one = decided(context="32Ki", engine={"version": "0.33.0", "flags": flags})
    assert one.rate.streams == min(512, one.kv_tokens // 768)
    assert one.usd_per_million_output_tokens == pytest.approx(
        token_price(one, Mix()).usd_per_million_output()
    )


def test_few_requests_and_nearly_full_machines_are_written_so_that_one_can_read_them():
    found = token_price(decided(), Mix(250_000, 1, requests_per_s=0.0001))
    assert "at most one request in 36 s" in found.sentences()[0]
    assert "busy 0.36% of the time" in found.sentences()[2]
    assert found.summary()["requests_per_s"] == pytest.approx(0.0282, rel=0.01)
    assert "1 token in and 1 out, 1 stream:" in token_price(decided(concurrency=1), Mix(1, 1)).sentences()[0]
    assert "come unevenly have to wait" in token_price(decided(), Mix(requests_per_s=32.5)).sentences()[2]
    assert "unevenly" not in token_price(decided(), Mix(requests_per_s=25.0)).sentences()[2]


def test_a_load_as_it_is_written_needs_the_machine_that_it_was_written_for():
    """The plan says "at most 33.00 requests/s" is 32.998, and 33 needed a second machine."""
    full, above = (token_price(decided(), Mix(requests_per_s=load)) for load in (33.0, 33.1))
    assert (full.machines, full.used, above.machines) == (1, 1.0, 2)
    assert "With 33 requests/s, this machine is busy 100% of the time, where" in full.sentences()[2]
    assert "With 33.1 requests/s, 2 such machines are busy" in above.sentences()[2]


@pytest.mark.parametrize(
    ("load", "shown", "busy"),
    [
        (0.00001, "0.00001 requests/s", "less than 0.01%"),
        (0.1, "0.1 requests/s", "0.3%"),
        (1_000_000, "1,000,000 requests/s", "100%"),
    ],
)
def test_loads_of_every_size_can_be_read(load, shown, busy):
    found = token_price(decided(), Mix(requests_per_s=load)).sentences()[2]
    assert found.startswith(f"With {shown}, ")
    assert f" busy {busy} of the time" in found


def test_one_stream_and_one_token_are_not_plural(capsys):
    assert main(["plan", STACK, "--set", "concurrency=1", "--input", "1", "--output", "1"]) == 0
    text = capsys.readouterr().out
    assert "(computed: of 1 token in and 1 out, always busy" in text
    assert "output tokens/s at 1 stream, 512" in text
    assert "1 streams" not in text


@pytest.mark.parametrize(("written", "tokens"), [("2Ki", 2048), ("3k", 3000), ("700", 700)])
def test_tokens_of_a_mix_are_written_as_in_a_stack_file(capsys, written, tokens):
    assert main(["plan", STACK, "--input", written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_price"]["input_tokens"] == tokens


@pytest.mark.parametrize("wrong", ["1,000", "many", "1e3"])
def test_tokens_that_are_no_number_have_an_example(capsys, wrong):
    assert main(["plan", STACK, "--output", wrong]) == 64
    assert "is not tokens, for example 32768 or 32Ki" in capsys.readouterr().err


def test_the_command_prints_the_users_mix(capsys):
    options = ["--input", "20000", "--output", "400", "--requests-per-second", "3"]
    assert main(["plan", STACK, *options]) == 0
    text = capsys.readouterr().out
    assert "20,000 tokens in and 400 out, 41 streams" in text
    assert "With 3 requests/s, 4 such machines are busy" in text
    assert text.count("\nusd_per_million_output_tokens: 3.67 (computed: of 20,000") == 1
    assert main(["plan", STACK, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_price"]["machines"] == 4
    assert main(["plan", STACK, "spheron-h200-2x-fp8", *options]) == 0
    shown = capsys.readouterr().out
    assert f"token price of {STACK} (computed):\n  20,000 tokens in" in shown


def test_a_price_that_is_unknown_has_its_reason(capsys):
    reason = "unknown, because no rate of vLLM 0.32.0-cpu was measured with this model and precision on such a machine"
    assert main(["plan", "local", "--input", "100", "--output", "100"]) == 0
    assert f"token price: {reason}" in capsys.readouterr().out
    assert main(["plan", "local", STACK]) == 0
    assert f"token price of local: {reason}" in capsys.readouterr().out
    assert main(["plan", "local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["token_price"], found["token_price_unknown"]) == (None, reason.partition("because ")[2])


def test_a_cache_that_holds_no_such_request_has_no_price():
    one = decided()
    assert "the KV cache holds 0 requests of 900,000 tokens" in token_price(one, Mix(899_000, 1_000))
    assert token_price(dataclasses.replace(one, lengths=Lengths()), Mix()) == (
        "it was not measured how fast such a machine reads prompts"
    )


def test_every_wrong_number_is_named_at_once(capsys):
    assert main(["plan", STACK, "--input", "0", "--requests-per-second", "-1"]) == 64
    shown = capsys.readouterr().err
    assert "--input: 0 is out of range" in shown
    assert "--requests-per-second: -1 is out of range" in shown
    for wrong in ("0", "nan", "inf", "1e9", "1e-320"):
        assert main(["plan", STACK, "--requests-per-second", wrong]) == 64
        assert "is out of range; write 0.000001 to 1,000,000" in capsys.readouterr().err
    assert main(["plan", STACK, "--input", "262144"]) == 64
    assert "together above 262,144 tokens, the stack's context" in capsys.readouterr().err


LOAD = ["--input", "100000", "--output", "500", "--requests-per-second", "1"]


def test_a_load_that_takes_several_machines_is_named_first(capsys):
    assert main(["plan", STACK, *LOAD]) == 0
    second = capsys.readouterr().out.splitlines()[1]
    assert re.fullmatch(
        r"too small: it takes \d+ such machines, \$[\d.]+ per hour, for 1 request/s with .*", second
    )
    assert main(["plan", STACK]) == 0
    assert "too small" not in capsys.readouterr().out


def test_the_price_of_a_mix_is_the_same_as_text_as_json_and_in_a_comparison(capsys):
    shown = []
    for words in (["plan", STACK], ["plan", STACK, STACK]):
        assert main([*words, *LOAD[:4]]) == 0
        shown += re.findall(r"usd_per_million_output_tokens:? +([\d.]+)", capsys.readouterr().out)
    assert main(["plan", STACK, *LOAD[:4], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert shown == [f"{found['usd_per_million_output_tokens']:.2f}"] * 2
    assert (
        found["usd_per_million_output_tokens"]
        == found["token_price"]["usd_per_million_output_tokens"]["100%"]
    )
    assert found["usd_per_million_load"] == "always busy, 100,000 tokens in and 500 out"
