"""Images: whether they are accepted, and what that does to the batch and the utilization."""

import pytest
from blocks import machine
from pulumi_vllm.plan import Deployment, DoesNotFit, plan, reasons

MASKED = "0.26.0"
"""The newest engine whose images have a mask, so that their memory grows with the square of the batch."""


@pytest.mark.parametrize(("flags", "outcome"), [({}, "accepted"), ({"language-model-only": True}, "refused")])
def test_the_plan_says_whether_images_are_accepted(flags, outcome):
    lines = reasons.because(plan(Deployment.parse(machine(engine={"flags": flags}))))
    (line,) = [line for line in lines if line.startswith("Images are")]
    assert line.startswith(f"Images are {outcome}: ")
    assert line.endswith("0.40 GiB per GPU (computed).")


@pytest.mark.parametrize(
    ("flags", "batch"),
    [
        ({}, 4096),
        ({"max-num-batched-tokens": 2048}, 2048),
        ({"language-model-only": True}, None),
        ({"limit-mm-per-prompt": '{"image": {"count": 0}}'}, None),
        ({"limit-mm-per-prompt": '{"image": 3}'}, 4096),
        ({"limit-mm-per-prompt": '{"audio": 0}'}, 4096),
        ({"limit-mm-per-prompt.image": 0}, None),
        ({"limit-mm-per-prompt.image.count": 0}, None),
        ({"language-model-only": False}, 4096),
    ],
)
def test_the_batch_is_smaller_where_images_are_accepted(flags, batch):
    decided = plan(Deployment.parse(machine("H100", 1, precision="nvfp4", engine={"flags": flags})))
    assert decided.arguments.batched_tokens == batch
    said = " ".join(reasons.because(decided))
    assert ("A step full of images" in said) == (batch == 4096)
    assert ("instead of vLLM's 8,192" in said) == (batch == 4096)


@pytest.mark.parametrize(("precision", "batch", "used"), [("fp8", 8192, 0.94), ("nvfp4", 4096, 0.95)])
def test_the_batch_for_images_depends_on_the_precision(precision, batch, used):
    decided = plan(Deployment.parse(machine("H200", 1, precision=precision, engine={"version": MASKED})))
    assert (decided.arguments.batched_tokens, decided.arguments.utilization) == (batch, used)
    assert ("instead of vLLM's 8,192" in " ".join(reasons.because(decided))) == (precision == "nvfp4")


def test_without_chunked_prefill_the_batch_is_vllms_own():
    wanted = machine(
        "H200", 1, context="8Ki", engine={"version": MASKED, "flags": {"enable-chunked-prefill": False}}
    )
    assert "--max-num-batched-tokens" not in plan(Deployment.parse(wanted)).argv
    with pytest.raises(DoesNotFit, match="GiB per GPU are missing"):
        plan(Deployment.parse(wanted | {"context": "32Ki"}))


def test_the_utilization_depends_on_the_users_own_batch():
    def utilization(**flags):
        decided = plan(Deployment.parse(machine("H200", 1, engine={"version": MASKED, "flags": flags})))
        return decided.memory.limit_gib / decided.memory.visible_gib

    assert utilization() == pytest.approx(0.94)
    assert utilization(**{"max-num-batched-tokens": 4096}) == pytest.approx(0.95)
