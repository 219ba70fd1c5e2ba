"""A refusal names its cause: the context, or a flag of the stack file."""

import pytest
from pulumi_vllm.plan import Deployment, DoesNotFit, plan


def block(**engine):
    return {
        "model": "mistral-small-4",
        "context": "32Ki",
        "machine": {"gpu": "H200", "count": 2, "max_usd_per_hour": 9},
        "storage": "300GB",
        "access": {"allow": ["9.9.9.0/24"]},
        "engine": {"version": "0.26.0", **engine},  # whose images take the most
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpu-memory-utilization": 0.001}, "with gpu-memory-utilization 0.001: .*; leave it out$"),
        ({"max-num-batched-tokens": "1G"}, "with max-num-batched-tokens 1G: .*activation .*; leave it out$"),
        (
            {"max-num-batched-tokens": "64k"},
            r"with max-num-batched-tokens 64k: .* activation 24\d\.\d for 21 images of .*saves; leave it out$",
        ),
        (
            {"gpu-memory-utilization": 0.2, "enforce-eager": True, "max-num-batched-tokens": "1G"},
            "with gpu-memory-utilization 0.2 and max-num-batched-tokens 1G: .*; leave them out",
        ),
    ],
)
def test_a_flag_that_takes_the_memory_is_named(given, message):
    with pytest.raises(
        DoesNotFit, match=rf"^server.engine.flags: mistral-small-4 in fp8 does not fit 2x H200 {message}"
    ):
        plan(Deployment.parse(block(flags=given)))


@pytest.mark.parametrize(
    ("context", "batch", "message"),
    [
        ("32Ki", "32K", r"of 99\.3 GiB weights take 112\.9 and activation 31\.6 for 10 images "),
        ("256Ki", "15K", r"GiB per GPU are missing; 14\.74 GiB are for 5 images "),
    ],
)
def test_images_that_take_the_memory_are_named(context, batch, message):
    one = {"gpu": "H200", "count": 1, "max_usd_per_hour": 9}
    asked = block(flags={"max-num-batched-tokens": batch}) | {
        "context": context,
        "machine": one,
        "precision": "fp8",
    }
    with pytest.raises(
        DoesNotFit, match=f"{message}.*, most of which language-model-only saves; leave it out"
    ):
        plan(Deployment.parse(asked))


def test_a_flag_that_is_not_the_cause_is_not_named():
    small = {"gpu": "H100", "count": 1, "max_usd_per_hour": 9}
    with pytest.raises(DoesNotFit, match=r"^server.context: .*the weights alone take"):
        plan(
            Deployment.parse(
                {**block(flags={"max-num-batched-tokens": 4096}), "precision": "fp8", "machine": small}
            )
        )


def test_the_error_names_a_utilization_that_fits():
    with pytest.raises(DoesNotFit, match=r"use 0\.(\d\d) or less") as refused:
        plan(Deployment.parse(block(flags={"gpu-memory-utilization": 0.99})))
    safe = str(refused.value).partition("; use ")[2].split()[0]
    assert plan(Deployment.parse(block(flags={"gpu-memory-utilization": float(safe)}))).memory.fits
