"""Stacks are called `<cloud>-<gpu>-<count>x-<precision>`: a name that says another machine is a mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pulumi_vllm.plan.validation_messages import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"(?P<cloud>spheron)-(?P<gpu>[a-z0-9-]+)-(?P<count>\d+)x-(?P<precision>[a-z0-9]+)")


def no_block(stack: str, known: Iterable[str]) -> str:
    """The sentence for a stack that has no configuration: its name is often one letter off."""
    files = sorted(known)
    remedy = nearest(stack, files) if files else "write one"
    return f"stack {stack}: no pulumi-vllm:server in its configuration (stacks/Pulumi.{stack}.yaml); {remedy}"


def contradictions(stack: str, block: object) -> tuple[str, ...]:
    """Where a name of that shape says something else than the block."""
    said = _NAME.fullmatch(stack)
    if said is None or not isinstance(block, Mapping):
        return ()
    machine = block.get("machine")
    machine = machine if isinstance(machine, Mapping) else {}
    told = [
        ("cloud", "server.machine.cloud", machine.get("cloud")),
        ("gpu", "server.machine.gpu", machine.get("gpu")),
        ("count", "server.machine.count", machine.get("count")),
        ("precision", "server.precision", block.get("precision")),
    ]
    return tuple(
        f"{path}: is {value}, but the stack's name {stack} says {said[part]}; rename the stack, or correct the file"
        for part, path, value in told
        if value is not None and _plain(value) != _plain(said[part])
    )


def _plain(value: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value).lower())
