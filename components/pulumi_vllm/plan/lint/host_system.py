"""Rules about the host: its driver, the environment of the unit, and the time that systemd grants a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_LONGEST_SHUTDOWN_S = 30
"""The unit's stop limit is 45 s, and vLLM needs 15 s beyond its own limit."""


def driver_too_old(launch: Launch) -> Problems:
    """A GPU driver that is too old for the engine."""
    minimum = launch.engine.driver_floor
    if launch.driver is None or minimum is None:
        return
    if [int(part) for part in launch.driver.split(".")] < [int(part) for part in minimum.split(".")]:
        yield error(
            f"driver {launch.driver}: vLLM {launch.engine.version} needs {minimum} or newer; rent another host",
            "CUDA 13.0 needs it (published)",
        )


def processor(launch: Launch) -> Problems:
    """A GPU whose machine has a processor for which no engine is locked."""
    if launch.gpu is not None and launch.gpu.processor != "x86_64":
        yield error(
            f"a machine with {launch.gpu.name} has an Arm processor ({launch.gpu.processor}), and the locks of vLLM "
            f"{launch.engine.version} hold packages for x86-64; take another GPU",
            "the hashes of the locks are those of x86-64 packages (lab/engine/lock.py)",
        )


def environment_variables(launch: Launch) -> Problems:
    """Environment variables that have no effect, or a harmful one."""
    if "HF_HUB_ENABLE_HF_TRANSFER" in launch.environment:
        yield warning(
            "HF_HUB_ENABLE_HF_TRANSFER is ignored; leave it out",
            "huggingface_hub 2.4.0, run: a FutureWarning",
        )
    if launch.environment.get("VLLM_MLA_DISABLE") == "1" and launch.on_gpu:
        yield warning(
            "VLLM_MLA_DISABLE=1 makes the KV cache 25 times as large; leave it out",
            "589,824 against 23,040 bytes a token, computed",
        )


def shutdown_timeout(launch: Launch) -> Problems:
    """A stop that cuts running requests, or that takes longer than the unit allows."""
    written = str(launch.arguments.flags.get("shutdown-timeout", 0))
    if not written.isdecimal():
        return  # the rule invalid-value reports it
    seconds = int(written)
    if seconds <= 0:
        yield warning(
            "--shutdown-timeout 0 aborts running requests when the service stops; set it to 30",
            "a running stream ended with an error chunk, run on the CPU build 0.32.0",
        )
    elif seconds > _LONGEST_SHUTDOWN_S:
        yield error(
            f"--shutdown-timeout {seconds}: systemd kills the unit after 45 s, and vLLM needs up to 15 s beyond its "
            "own limit; use 30 or less, and drain_timeout_s for a longer drain at the gateway",
            "systemd killed the server at its limit, run on the CPU build 0.32.0",
        )
