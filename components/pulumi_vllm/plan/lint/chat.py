"""Rules about settings with which chats or images are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_LIMIT_KEYS = {"count", "width", "height", "num_frames", "length"}
"""Keys of a limit that is an object (MultiModalConfig of 0.26.0 and 0.33.0)."""

_FIRST_BROKEN_MISTRAL_COMMON = (1, 13)

_EFFORTS = {
    "PixtralForConditionalGeneration": (
        ("none", "high"),
        "run on the CPU build 0.32.0 with mistral_common 1.12.0",
    ),
    "GptOssForCausalLM": (("low", "medium", "high"), "openai-harmony, which vLLM renders its prompts with"),
}
"""Class of vLLM → the reasoning efforts that its tokenizer has, and the evidence. The efforts of others are unknown."""


def reasoning_effort(launch: Launch) -> Problems:
    """A reasoning effort with which vLLM refuses every request."""
    allowed, evidence = _EFFORTS.get(launch.model.architecture or "", ((), ""))
    for flag in ("default-chat-template-kwargs", "reasoning-effort-map") if allowed else ():
        try:
            content = json.loads(str(launch.arguments.flags.get(flag, "{}")))
        except ValueError:
            continue
        values = content.values() if flag.endswith("map") else [content.get("reasoning_effort", allowed[0])]
        for value in values:
            if value not in allowed:
                yield error(
                    f"--{flag}: requests with reasoning_effort {value} get 400; use {' or '.join(allowed)}",
                    evidence,
                )


def image_limit(launch: Launch) -> Problems:
    """A limit of images per request that is JSON, but not a limit."""
    written = launch.arguments.flags.get("limit-mm-per-prompt")
    try:
        content = json.loads(str(written)) if written is not None else {}
    except ValueError:
        return  # the rule invalid-value reports it
    if not isinstance(content, dict) or not all(map(_is_limit, content.values())):
        yield error(
            f"--limit-mm-per-prompt {written} is not an object of whole numbers, and vLLM does not start; "
            'write for example {"image": 4}',
            "MultiModalConfig of vLLM 0.26.0 (source)",
        )


def _is_limit(one: object) -> bool:
    """Whether a value limits a kind of input: a count, or an object with the count and the largest size."""
    if isinstance(one, dict):
        return not set(one) - _LIMIT_KEYS and all(map(_is_limit, one.values()))
    if isinstance(one, str):
        return one.isdecimal()
    return isinstance(one, int) and not isinstance(one, bool) and one >= 0


def mistral_common_version(launch: Launch) -> Problems:
    """A version of mistral_common with which every chat gets 400."""
    flags = {**launch.model.flags, **launch.arguments.flags}
    if "mistral" not in (flags.get("tokenizer-mode"), flags.get("tool-call-parser")):
        return
    evidence = "force_tool_names missing in get_lark_from_jinja, run on 0.32.0 with 1.13.1"
    locks = launch.engine.locks()
    if not locks:
        yield warning(
            f"vLLM {launch.engine.version} installs the newest mistral_common, with which every chat gets 400; "
            "pin mistral_common<1.13",
            evidence,
        )
    for python, text in locks.items():
        lines = (line for line in text.splitlines() if line.startswith("mistral-common=="))
        version = next((line.split("==")[1].split()[0] for line in lines), None)
        if version is None:
            continue
        if tuple(int(part) for part in version.split(".")[:2]) >= _FIRST_BROKEN_MISTRAL_COMMON:
            yield error(
                f"the lock for Python {python} holds mistral_common {version}, with which every chat gets 400; "
                "compile it with mistral_common<1.13",
                evidence,
            )
