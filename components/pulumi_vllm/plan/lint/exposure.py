"""Rules about an engine that others can reach past the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.host_paths import ENGINE_ADDRESS
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems


def api_key(launch: Launch) -> Problems:
    """VLLM's own API key, which leaves some routes open."""
    evidence = "full completion from /invocations without a key, run on the CPU build 0.32.0"
    remedy = "the gateway checks keys, name them under access.keys"
    if "api-key" in launch.arguments.flags:
        yield error(
            f"--api-key shows the key in the process list and leaves /invocations and /tokenize open; {remedy}",
            evidence,
        )
    elif "VLLM_API_KEY" in launch.environment:
        yield warning(f"VLLM_API_KEY leaves /invocations and /tokenize open; {remedy}", evidence)


def listen_address(launch: Launch) -> Problems:
    """An engine that listens on other addresses than loopback (--host)."""
    host = launch.arguments.flags.get("host")
    evidence = "vLLM has routes without a key, run on the CPU build 0.32.0"
    if host is None:
        yield warning(
            f"no --host: vLLM listens on every address; set it to {ENGINE_ADDRESS}, behind a gateway",
            evidence,
        )
    elif host not in (ENGINE_ADDRESS, "localhost", "::1"):
        yield error(
            f"--host {host}: clients could reach the engine past the gateway; leave it at {ENGINE_ADDRESS}",
            evidence,
        )
