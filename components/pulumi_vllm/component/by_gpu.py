"""What a program declares for a machine that may have one of several GPUs: it depends on the one that was rented."""

from collections.abc import Callable
from typing import TypeVar

import pulumi

from pulumi_vllm.plan import Plan
from pulumi_vllm.render import HostFile

_Value = TypeVar("_Value")


def of_taken(
    planned: Plan, taken: pulumi.Output[str], pick: Callable[[Plan], _Value]
) -> _Value | pulumi.Output[_Value]:
    """Return a value of the plan for the machine's GPU. With one GPU in the stack file it is known at once."""
    if not planned.others:
        return pick(planned)
    plans = {one.deployment.machine.gpu: one for one in (planned, *planned.others)}
    return taken.apply(lambda gpu: pick(plans.get(gpu, planned)))


def of_files(
    files: tuple[HostFile, ...] | pulumi.Output[tuple[HostFile, ...]], pick: Callable[[HostFile], str]
) -> pulumi.Input[dict[str, str]]:
    """Return a value of each file, by path."""
    if isinstance(files, tuple):
        return {file.path: pick(file) for file in files}
    return files.apply(lambda found: {file.path: pick(file) for file in found})
