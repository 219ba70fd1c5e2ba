"""Checks that a stack named `<cloud>-<gpu>-<count>x-<precision>` describes the machine that its file asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"(?P<cloud>spheron)-(?P<gpu>[a-z0-9-]+)-(?P<count>\d+)x-(?P<precision>[a-z0-9]+)")


def no_block(stack: str, known: Iterable[str]) -> str:
    """The message for a stack without configuration. Often its name is one letter off a known one."""
    files = sorted(known)
    remedy = suggestion(stack, files) if files else "write one"
    return f"stack {stack}: no pulumi-vllm:server in its configuration (stacks/Pulumi.{stack}.yaml); {remedy}"


def contradictions(stack: str, block: object) -> tuple[str, ...]:
    """An error for each part of the name that the block contradicts."""
    name = _NAME.fullmatch(stack)
    if name is None or not isinstance(block, Mapping):
        return ()
    machine = block.get("machine")
    machine = machine if isinstance(machine, Mapping) else {}
    values = [
        ("cloud", "server.machine.cloud", machine.get("cloud")),
        ("gpu", "server.machine.gpu", _first(machine.get("gpu"))),
        ("count", "server.machine.count", machine.get("count")),
        ("precision", "server.precision", block.get("precision")),
    ]
    return tuple(
        f"{path}: is {value}, but the stack's name {stack} says {name[part]}; rename the stack, or correct the file"
        for part, path, value in values
        if value is not None and _normalized(value) != _normalized(name[part])
    )


def _first(gpu: object) -> object:
    """The preferred GPU of several."""
    return gpu[0] if isinstance(gpu, list | tuple) and gpu else gpu


def _normalized(value: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value).lower())
