"""What becomes of images: whether they are accepted, what that does to the batch and the utilization, what is said."""

import pytest
from pulumi_vllm.plan import Deployment, DoesNotFit, plan
from pulumi_vllm.plan.engine_arguments import pairs
from test_plan import machine


@pytest.mark.parametrize(("flags", "said"), [({}, "accepted"), ({"language-model-only": True}, "refused")])
def test_what_becomes_of_images_is_said(flags, said):
    lines = plan(Deployment.parse(machine(engine={"flags": flags}))).because
    (line,) = [line for line in lines if line.startswith("Images are")]
    assert line.startswith(f"Images are {said}: ")
    assert line.endswith("0.40 GiB per GPU (computed).")


@pytest.mark.parametrize(
    ("flags", "batch"),
    [
        ({}, "4096"),
        ({"max-num-batched-tokens": 2048}, "2048"),
        ({"language-model-only": True}, None),
        ({"limit-mm-per-prompt": '{"image": {"count": 0}}'}, None),
        ({"limit-mm-per-prompt": '{"image": 3}'}, "4096"),
        ({"limit-mm-per-prompt": '{"audio": 0}'}, "4096"),
        ({"limit-mm-per-prompt.image": 0}, None),
        ({"limit-mm-per-prompt.image.count": 0}, None),
        ({"language-model-only": False}, "4096"),
    ],
)
def test_the_batch_is_smaller_where_images_are_accepted(flags, batch):
    decided = plan(Deployment.parse(machine("H100", 1, precision="nvfp4", engine={"flags": flags})))
    assert pairs(decided.argv).get("max-num-batched-tokens") == batch
    said = " ".join(decided.because)
    assert ("A step full of images" in said) == (batch == "4096")
    assert ("not vLLM's 8,192" in said) == (batch == "4096")


@pytest.mark.parametrize(("precision", "batch", "used"), [("fp8", "8192", "0.94"), ("nvfp4", "4096", "0.95")])
def test_the_batch_of_images_is_the_precisions(precision, batch, used):
    decided = plan(Deployment.parse(machine("H200", 1, precision=precision)))
    found = pairs(decided.argv)
    assert (found["max-num-batched-tokens"], found["gpu-memory-utilization"]) == (batch, used)
    assert ("not vLLM's 8,192" in " ".join(decided.because)) == (precision == "nvfp4")


def test_without_chunked_prefill_the_batch_is_vllms_own():
    wanted = machine("H200", 1, context="8Ki", engine={"flags": {"enable-chunked-prefill": False}})
    assert "--max-num-batched-tokens" not in plan(Deployment.parse(wanted)).argv
    with pytest.raises(DoesNotFit, match="GiB per GPU are missing"):
        plan(Deployment.parse(wanted | {"context": "32Ki"}))


def test_a_batch_of_ones_own_lowers_the_utilization():
    def utilization(**flags):
        decided = plan(Deployment.parse(machine("H200", 1, engine={"flags": flags})))
        return decided.memory.limit_gib / decided.memory.visible_gib

    assert utilization() == pytest.approx(0.94)
    assert utilization(**{"max-num-batched-tokens": 4096}) == pytest.approx(0.95)
