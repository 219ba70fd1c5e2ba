"""Rules about arguments and values that vLLM refuses when it reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import vllm_parser
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems


def unknown_flag(launch: Launch) -> Problems:
    """An argument that this vLLM version does not have."""
    for message in vllm_parser.unknown(launch.arguments.flags, launch.engine.version):
        yield error(message, _parser(launch))


def invalid_value(launch: Launch) -> Problems:
    """A value that vLLM's parser refuses."""
    own_rule = ("dtype", "quantization")
    flags = {name: value for name, value in launch.arguments.flags.items() if name not in own_rule}
    for message in vllm_parser.refused(flags, launch.engine.version):
        yield error(message, _parser(launch))


def out_of_range(launch: Launch) -> Problems:
    """A number that the parser accepts, but vLLM's configuration refuses at start."""
    own_rule = "gpu-memory-utilization"
    flags = {name: value for name, value in launch.arguments.flags.items() if name != own_rule}
    for message in vllm_parser.out_of_range(flags, launch.engine.version):
        yield error(message, f"the configuration of vLLM {launch.engine.version}")


def deprecated_flag(launch: Launch) -> Problems:
    """An argument that a later vLLM version removes."""
    for message in vllm_parser.deprecated(launch.arguments.flags, launch.engine.version):
        yield warning(message, _parser(launch))


def _parser(launch: Launch) -> str:
    return f"the parser of vLLM {launch.engine.version}"
