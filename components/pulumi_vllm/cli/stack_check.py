"""Check a stack file with everything that belongs to it: the server, and a machine of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pulumi_vllm.cli import stack_file
from pulumi_vllm.plan import host_block
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.errors import ConfigError, PlanError

Result = TypeVar("Result")


def checked(path: Path, block: dict[str, Any], decide: Callable[[Deployment], Result]) -> Result:
    """Return what `decide` makes of the block, which may differ from the one in the file.

    Raises:
        PlanError: with every error, also of `pulumi-vllm:host`.
    """
    host = stack_file.value_of(path, host_block.IN_STACK_FILE)
    of_host = tuple(host_block.errors_in_file(host))
    try:
        deployment = Deployment.parse(block, folders=stack_file.folders_of(path))
        if host is not None and not deployment.machine.is_own:
            of_host = (f"{host_block.IN_STACK_FILE}: {host_block.NO_EFFECT}", *of_host)
        result = decide(deployment)
    except PlanError as error:
        raise type(error)((*error.errors, *of_host)) from None
    if of_host:
        raise ConfigError(of_host)
    return result
