"""Named combinations: a stack of the checkout with changes that a user may make."""

from __future__ import annotations

import copy
import difflib
import functools
from dataclasses import dataclass, field
from typing import Any

import goldens
import yaml
from pulumi_vllm.plan import Deployment, Plan, plan
from pulumi_vllm.render import HostFile, render

import stacks


@dataclass(frozen=True, slots=True)
class Combination:
    """A base stack, changed values by dotted key, and arguments that the program passes besides the block."""

    base: str
    changes: dict[str, Any] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)


COMBINATIONS = {
    "context-128ki-profile-latency": Combination(
        "spheron-h200-1x-fp8", {"context": "128Ki", "concurrency": None, "profile": "latency"}
    ),
    "context-256ki-profile-long": Combination(
        "spheron-h100-1x-nvfp4", {"context": "256Ki", "concurrency": None, "profile": "long"}
    ),
    "spot-with-fallback": Combination(
        "spheron-h200-2x-fp8", {"machine.billing": "spot", "machine.fallback": "on-demand"}
    ),
    "nvfp4-on-two-h200": Combination("spheron-h200-2x-fp8", {"precision": "nvfp4", "storage": "200GB"}),
    "tools-off": Combination("spheron-h200-1x-fp8", {"engine.flags": {"enable-auto-tool-choice": False}}),
    "language-model-only": Combination(
        "spheron-h100-1x-nvfp4", {"engine.flags": {"language-model-only": True}}
    ),
    "flags-with-an-ignored-finding": Combination(
        "spheron-h200-1x-fp8",
        {
            "engine.flags": {"kv-cache-dtype": "fp8", "max-num-batched-tokens": 10240},
            "engine.ignore": {"kv-cache-dtype": "a FlashMLA of our own is installed"},
        },
    ),
    "hub-token": Combination("spheron-h200-2x-fp8", args={"hf_token": "${config:hfToken}"}),
    "keys-of-your-own": Combination(
        "spheron-h200-2x-fp8",
        {
            "access.keys": [
                "team-a",
                "team-b",
                {"name": "nightly", "priority": "low", "tokens_per_minute": 100_000},
            ]
        },
        args={"keys": {"team-a": "${config:keys.team-a}"}},
    ),
    "hub-of-your-own": Combination(
        "spheron-h200-2x-fp8", {"weights.endpoint": "https://hub.example.com/models"}
    ),
    "gateway-limits-and-ssh": Combination(
        "spheron-h200-2x-fp8",
        {
            "access.allow": ["0.0.0.0/0", "2620:fe::/48"],
            "access.ssh_allow": ["9.9.9.7/32"],
            "gateway": {"requests_per_minute": 60, "max_body_mib": 2, "streams_per_key": 8},
            "drain_timeout_s": 600,
        },
    ),
    "a-machine-of-your-own": Combination(
        "spheron-h100-2x-fp8",
        {
            "machine": {"cloud": "none", "gpu": "H100", "count": 2, "usd_per_hour": 6.0},
            "storage": {"path": "/data/llm"},
        },
        args={"host": {"address": "203.0.113.7", "private_key": "${config:hostPrivateKey}"}},
    ),
    "another-model": Combination(
        "spheron-h100-2x-fp8",
        {"model": "qwen2.5-32b-instruct", "precision": "bf16", "storage": "120GB", "concurrency": 64},
    ),
}


def block(name: str) -> dict[str, Any]:
    """The block of the stack file with the changes."""
    one = COMBINATIONS[name]
    found = copy.deepcopy(stacks.block(one.base))
    for dotted, value in one.changes.items():
        *parents, key = dotted.split(".")
        at = found
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is None:
            at.pop(key, None)
        else:
            at[key] = value
    return found


@functools.cache
def planned(name: str) -> Plan:
    """Plan of the combination."""
    return plan(Deployment.parse(block(name)))


@functools.cache
def rendered(name: str) -> tuple[HostFile, ...]:
    """Rendered files of the combination."""
    one = COMBINATIONS[name]
    return render(planned(name), mount=stacks.mount(one.base))


def difference(name: str) -> str:
    """Effect of the changes on the base stack: a unified diff of every file that differs, and of the resources."""
    one = COMBINATIONS[name]
    before = goldens.texts(stacks.planned(one.base), stacks.rendered(one.base), stacks.block(one.base), {})
    after = goldens.texts(planned(name), rendered(name), block(name), one.args)
    out = f"# {one.base}, changed:\n"
    changes = {**one.changes, **({"program": one.args} if one.args else {})}
    out += "".join(f"#   {line}\n" for line in yaml.safe_dump(changes, sort_keys=False).splitlines())
    for path in sorted(before.keys() | after.keys()):
        lines = [side.get(path, "").splitlines(keepends=True) for side in (before, after)]
        changed = difflib.unified_diff(*lines, f"{one.base}/{path}", f"{name}/{path}", n=1)
        # Without line numbers, which shift with every change of the base stack.
        out += "".join("@@\n" if line.startswith("@@ ") else line for line in changed)
    return out
