"""Rules about settings that make vLLM slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint.findings import warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems


def prefix_caching(launch: Launch) -> Problems:
    """Prefix caching that is switched off."""
    if launch.arguments.flags.get("enable-prefix-caching") is False:
        yield warning(
            "--no-enable-prefix-caching is not needed, prefix caching works with an fp8 KV cache too; leave it out",
            "the configuration check of vLLM 0.33.0 accepts both, run",
        )


def speculative_decoding(launch: Launch) -> Problems:
    """Speculative decoding, which was slower where it was measured."""
    if "speculative-config" in launch.arguments.flags:
        yield warning(
            "speculative decoding was slower where it was measured; try it before you keep it",
            "published test of Mistral Small 4 on another GPU: 35 tok/s with, 69 without",
        )
