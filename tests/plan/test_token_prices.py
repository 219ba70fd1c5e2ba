"""What tokens cost for a mix of prompts and answers, and at a utilization below 1."""

import dataclasses
import json

import pytest
from blocks import STACKS, block_of
from pulumi_vllm.cli import main
from pulumi_vllm.plan import Deployment, catalogue, plan, pricing, token_prices
from pulumi_vllm.plan.token_prices import Mix, token_price

STACK = "spheron-h200-1x-fp8"


def decided(stack=STACK, **changed):
    return plan(Deployment.parse(block_of(stack) | changed))


@pytest.mark.parametrize("stack", sorted(set(STACKS) - {"local", "spheron-h100-4x-fp8"}))
def test_the_measured_load_has_the_measured_price(stack):
    one = decided(stack)
    found = token_price(one, Mix())
    assert found.usd_per_million_output() == pytest.approx(one.usd_per_million_output_tokens)
    assert found.requests_per_s * pricing.MEASURED_OUTPUT == pytest.approx(one.rate.tokens_per_s)
    assert not found.extrapolated
    assert 0.1 < found.input_share < 0.6
    per_input, per_output = found.usd_per_million_apart
    paid = per_input * pricing.MEASURED_INPUT + per_output * pricing.MEASURED_OUTPUT
    assert paid == pytest.approx(found.usd_per_million_output() * pricing.MEASURED_OUTPUT)


@pytest.mark.parametrize("stack", ["local", "spheron-h100-4x-fp8"])
def test_without_a_measured_rate_there_is_no_price(stack):
    assert token_price(decided(stack), Mix()) == (
        "no rate was measured with this model and precision on such a machine"
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
    ends = {tokens: run.prompt_rates[tokens] for tokens in (512, 261_000)}
    for tokens in (65_000, 130_500):
        predicted = token_prices.prompt_seconds(ends, tokens)
        assert predicted == pytest.approx(tokens / run.prompt_rates[tokens], rel=0.15)


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


def test_a_prompt_longer_than_any_measured_one_says_so():
    one = decided()
    short = dataclasses.replace(one, prompt_rates={512: 40_000.0})
    found = token_price(short, Mix(10_000, 100))
    assert found.extrapolated
    assert "No prompt of this length was measured" in found.sentences()[-1]


def test_the_command_prints_the_users_mix(capsys):
    options = ["--input", "20000", "--output", "400", "--requests-per-second", "3"]
    assert main(["plan", STACK, *options]) == 0
    text = capsys.readouterr().out
    assert "20,000 tokens in and 400 out, 41 streams" in text
    assert "3 requests/s keep 3 such machines busy" in text
    assert main(["plan", STACK, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_price"]["machines"] == 3
    assert main(["plan", STACK, "spheron-h200-2x-fp8", *options]) == 0
    shown = capsys.readouterr().out
    assert f"token price of {STACK} (computed from measured rates):\n  20,000 tokens in" in shown


def test_a_price_that_is_unknown_has_its_reason(capsys):
    reason = "unknown, because no rate was measured with this model and precision on such a machine"
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
    assert token_price(dataclasses.replace(one, prompt_rates={}), Mix()) == (
        "it was not measured how fast such a machine reads prompts"
    )


def test_every_wrong_number_is_named_at_once(capsys):
    assert main(["plan", STACK, "--input", "0", "--requests-per-second", "-1"]) == 64
    shown = capsys.readouterr().err
    assert "--input: 0 is out of range" in shown
    assert "--requests-per-second: -1 is out of range" in shown
    assert main(["plan", STACK, "--input", "262144"]) == 64
    assert "together above 262,144 tokens, the stack's context" in capsys.readouterr().err
