"""Loads of other mixes than the one that prices are computed from, against what the arithmetic says of them."""

import json

import gpu_kit
import pytest
from pulumi_vllm.plan import catalogue, pricing
from pulumi_vllm.plan.prompt_lengths import lengths
from pulumi_vllm.plan.token_prices import MEASURED, Mix, busy_seconds

COMPACT = gpu_kit.load("compact")


def mixes():
    """Machine, rate and mix of every such row of the evidence, with the output rate that it had."""
    known = catalogue.load()
    for path in sorted(COMPACT.EVIDENCE.glob("*/*.json")):
        if path.parent.name not in known.engines:
            continue
        evidence = json.loads(path.read_text())
        run = catalogue._measured(json.loads(json.dumps(COMPACT.compact(evidence))))
        for other in evidence["other_runs"]:
            for row in other.get("throughput", ()):
                mix, streams = Mix(row.get("input_tokens"), row.get("output_tokens")), row.get("concurrency")
                if not row.get("completed") or mix == MEASURED or streams > max(run.tokens_per_s):
                    continue
                if (rate := pricing.rate(run, streams)) is not None:
                    name = f"{path.stem}, {other['run']}: {streams} of {mix.input} and {mix.output}"
                    yield pytest.param(run, rate, mix, row["output_throughput"], id=name)


MIXES = list(mixes())


@pytest.mark.parametrize(("run", "rate", "mix", "measured"), MIXES)
def test_a_mix_gave_the_rate_that_is_computed_for_it(run, rate, mix, measured):
    """docs/explanation/performance.md names these bounds. Two machines differ by up to 9 %, at 512 streams by more."""
    computed = mix.output / sum(busy_seconds(run, lengths(catalogue.load().measured, run), rate, mix))
    assert 0.92 < measured / computed < 1.13


def test_they_are_many():
    assert len(MIXES) >= 25
    assert {mix.input > 100_000 for _, _, mix, _ in (one.values for one in MIXES)} == {True, False}
