"""Rules about arguments and values that vLLM refuses when it reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import vllm_parser
from pulumi_vllm.plan.engine_arguments import COUNTS, whole_number
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
    # dtype has a rule of its own.
    flags = {name: value for name, value in launch.arguments.flags.items() if name != "dtype"}
    for message in vllm_parser.refused(flags, launch.engine.version):
        yield error(message, _parser(launch))


def count_below_one(launch: Launch) -> Problems:
    """A count below 1, which the parser accepts but vLLM refuses at start."""
    for name in COUNTS:
        found = whole_number(launch.arguments.flags.get(name))
        automatic = name == "max-model-len" and found == -1
        if found is not None and found < 1 and not automatic:
            yield error(
                f"--{name} {launch.arguments.flags[name]} is below 1, and vLLM does not start; write 1 or more",
                "the checks of vLLM 0.26.0's configuration (source)",
            )


def deprecated_flag(launch: Launch) -> Problems:
    """An argument that a later vLLM version removes."""
    for message in vllm_parser.deprecated(launch.arguments.flags, launch.engine.version):
        yield warning(message, _parser(launch))


def conflicting_flags(launch: Launch) -> Problems:
    """Arguments that do not work together, or that need another one."""
    flags = launch.arguments.flags
    if flags.get("enable-auto-tool-choice") and "tool-call-parser" not in flags:
        yield error(
            "--enable-auto-tool-choice without --tool-call-parser is refused; add tool-call-parser: mistral",
            "the argument check of vLLM 0.33.0, run",
        )
    forked = launch.environment.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork"
    if forked and flags.get("mm-tensor-ipc") == "torch_shm":
        yield error(
            "--mm-tensor-ipc torch_shm is refused with forked worker processes, which this launch uses; leave it out",
            "VllmConfig of 0.26.0",
        )


def _parser(launch: Launch) -> str:
    return f"the parser of vLLM {launch.engine.version}"
