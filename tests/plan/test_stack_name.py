"""A stack's name must describe its machine."""

from pathlib import Path

import pytest
import yaml
from pulumi_vllm.plan import stack_name

FILES = sorted((Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_our_stacks_match_their_names(file):
    block = yaml.safe_load(file.read_text())["config"]["pulumi-vllm:server"]
    assert stack_name.contradictions(file.name.removeprefix("Pulumi.").removesuffix(".yaml"), block) == ()


def test_every_contradiction_is_reported():
    block = {"precision": "nvfp4", "machine": {"gpu": "RTX-PRO-6000", "count": 4}}
    found = stack_name.contradictions("spheron-h200-2x-fp8", block)
    assert [one.partition(":")[0] for one in found] == [
        "server.machine.gpu", "server.machine.count", "server.precision",
    ]  # fmt: skip
    assert stack_name.contradictions("spheron-rtxpro6000-4x-nvfp4", block) == ()
    assert stack_name.contradictions("spheron-rtx-pro-6000-4x-nvfp4", block) == ()


@pytest.mark.parametrize("stack", ["prod", "local", "team-a-h200-2x-fp8x", "spheron"])
def test_other_names_are_not_checked(stack):
    assert stack_name.contradictions(stack, {"machine": {"gpu": "H100", "count": 1}}) == ()


def test_a_stack_without_a_file_gets_a_suggestion():
    message = stack_name.no_block("spheron-h200-2x-fp9", ["local", "spheron-h200-2x-fp8"])
    assert message.startswith("stack spheron-h200-2x-fp9: no pulumi-vllm:server in its configuration")
    assert message.endswith("did you mean spheron-h200-2x-fp8?")
