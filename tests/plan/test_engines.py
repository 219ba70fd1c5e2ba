"""One engine over all GPUs of a machine, or several with a part of them each."""

import pytest
from blocks import block_of
from pulumi_vllm.plan import ConfigError, Deployment, DoesNotFit, PlanError, plan, reasons
from pulumi_vllm.plan.recommendation import Wish, recommend


def block(**changes):
    machine = {"gpu": "H200", "count": 2, "max_usd_per_hour": 9} | changes.pop("machine", {})
    usual = {"model": "mistral-small-4", "precision": "fp8", "context": "32Ki", "storage": "300GB"}
    return usual | {"concurrency": 256} | changes | {"machine": machine}


def decided(**changes):
    return plan(Deployment.parse(block(**changes)))


@pytest.mark.parametrize(
    ("concurrency", "engines"), [(1, 1), (31, 1), (256, 1), (512, 1), (768, 2), (1024, 2)]
)
def test_the_measured_rates_choose_the_number_of_engines(concurrency, engines):
    found = decided(concurrency=concurrency)
    assert found.engines == engines
    assert ("tensor-parallel-size" in found.arguments.flags) == (engines == 1)
    assert found.arguments.flags["max-num-seqs"] == concurrency // engines


def test_several_keys_share_the_places_of_all_engines():
    keys = {"access": {"keys": ["a", "b", "c"]}}
    assert (
        "3 keys share 1024 places: one without `concurrent` may fill 960, so that others find one. While requests "
        "wait, a key with no more than 341 comes first." in reasons.because(decided(concurrency=1024, **keys))
    )
    assert not any("keys share" in one for one in reasons.because(decided()))


def test_too_many_ranks_are_those_of_one_engine():
    with pytest.raises(
        PlanError, match="--tensor-parallel-size 2 needs 2 GPUs, an engine here has 1; use fewer"
    ):
        decided(concurrency=1024, machine={"engines": 2}, engine={"flags": {"tensor-parallel-size": 2}})


def test_nothing_is_chosen_without_a_measurement():
    assert decided(concurrency=1024, precision="nvfp4").engines == 1
    assert decided(concurrency=1024, machine={"gpu": "H100", "count": 4, "max_usd_per_hour": 20}).engines == 1
    assert decided(concurrency=1024, engine={"flags": {"tensor-parallel-size": 2}}).engines == 1


def test_what_was_asked_for_wins():
    assert decided(concurrency=1024, machine={"engines": 1}).engines == 1
    two = decided(concurrency=64, machine={"engines": 2})
    assert (two.engines, two.gpus_of_each, two.sequences_of_each) == (2, 1, 32)


def test_several_engines_are_measured_only_by_several_engines():
    two = decided(context="256Ki", concurrency=1024, machine={"engines": 2})
    assert two.measured == "yes"
    assert two.rate.tokens_per_s == pytest.approx(17_655, abs=1)
    assert two.kv_tokens == 2 * two.memory.kv_tokens
    one = decided(context="256Ki", concurrency=512, machine={"count": 1})
    assert one.rate.tokens_per_s < two.rate.tokens_per_s / 2


def test_a_plan_compares_the_divisions_of_its_machine():
    text = " ".join(reasons.because(decided(concurrency=1024)))
    assert "1.50 times the rate of one" in text
    assert "1 engine (TP 2): 11,767 output tokens/s at 1024 streams" in text
    assert "2 engines (1 GPU each): 17,655 output tokens/s at 1024 streams" in text
    assert "one request up to 262,144" in text
    assert "fails alone" in text
    assert "engines (" not in " ".join(reasons.because(decided(machine={"count": 1})))


def test_the_comparison_has_the_stacks_own_rate_and_calls_no_interpolation_measured():
    """Of two runs of two H200 at 512 streams the faster one had other flags than the stack."""
    own = Deployment.parse(block_of("spheron-h200-2x-fp8"))
    text = " ".join(reasons.because(plan(own)))
    assert "1 engine (TP 2): 10,953 output tokens/s at 512 streams, 3" in text
    assert "with any flags, or with these flags." in text
    between = " ".join(reasons.because(decided(concurrency=700)))
    assert "because that many were computed (from rates at other numbers of streams) to give 1.20" in between
    assert between.count("at 700 streams, interpolated, ") == 2
    assert "with any flags. " in between
    assert "with any flags" not in " ".join(
        reasons.because(plan(Deployment.parse(block_of("spheron-h100-4x-fp8"))))
    )


@pytest.mark.parametrize(("requests", "engines"), [(1, 2), (3, 4), (1, 8)])
def test_more_engines_than_requests_at_once_are_refused(requests, engines):
    machine = {"engines": engines, "count": 8, "max_usd_per_hour": 99}
    with pytest.raises(ConfigError) as refusal:
        decided(concurrency=requests, machine=machine, drain_timeout_s="soon")
    of_engines, _ = refusal.value.errors
    assert of_engines == (
        f"server.machine.engines: concurrency is {requests}, so that some of {engines} engines would get no request; "
        f"write concurrency: {engines} or more, or fewer engines"
    )
    assert decided(concurrency=engines, machine=machine).sequences_of_each == 1


@pytest.mark.parametrize(
    ("count", "engines", "refused"),
    [
        (2, 3, "share 2 GPUs evenly; write 1 or 2"),
        (8, 3, "share 8 GPUs evenly; write 1 or 2 or 4 or 8"),
        (1, 2, "share 1 GPU; write 1"),
    ],
)
def test_engines_that_do_not_divide_the_gpus_are_refused(count, engines, refused):
    with pytest.raises(ConfigError, match=rf"server.machine.engines: {engines} engines can't {refused}$"):
        Deployment.parse(block(machine={"count": count, "engines": engines}))


def test_too_many_engines_for_the_memory_name_fewer():
    with pytest.raises(DoesNotFit, match=r"does not fit 2x H100 with 2 engines.*machine.engines 1 here"):
        decided(machine={"gpu": "H100", "engines": 2})


def test_recommend_compares_both_for_the_same_machine():
    wish = Wish("mistral-small-4", 32_768, 1024, precision="fp8", gpu="H200", count=2)
    rows = recommend(wish).fitting
    assert [row.engines for row in rows] == [2, 1]
    assert rows[0].usd_per_million_output_tokens < rows[1].usd_per_million_output_tokens
    assert rows[0].kv_cache_tokens < rows[1].kv_cache_tokens
    assert any("ends only its own requests" in one for one in rows[0].findings)
    few = recommend(Wish("mistral-small-4", 32_768, 64, precision="fp8", gpu="H200", count=2))
    assert [row.engines for row in few.fitting] == [1]
