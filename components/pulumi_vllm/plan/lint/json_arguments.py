"""Rules about the content of arguments: keys of JSON that need others, and text of a form that vLLM refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pulumi_vllm.plan.engine_arguments import json_object
from pulumi_vllm.plan.lint.findings import error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.engine_arguments import Flags
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_WITH_A_DRAFT_MODEL = {None, "eagle", "eagle3", "draft_model", "medusa"}
"""Methods of speculative decoding that need a draft model."""


def incomplete_value(launch: Launch) -> Problems:
    """A value that the parser accepts, but that lacks what the configuration needs, or contradicts itself."""
    flags = launch.arguments.flags
    for message in (*_drafts(flags), *_structured(flags), *_connections(flags), *_texts(flags)):
        yield error(message, "the configuration of vLLM 0.26.0 and 0.33.0, run")


def _drafts(flags: Flags) -> Iterator[str]:
    drafts = json_object(flags, "speculative-config")
    if drafts and "num_speculative_tokens" not in drafts:
        yield "--speculative-config without num_speculative_tokens is refused; add it"
    if drafts and not drafts.get("model") and drafts.get("method") in _WITH_A_DRAFT_MODEL:
        yield "--speculative-config names no draft model, and its method needs one; add model, or use method ngram"
    if "spec-tokens" in flags and "spec-method" not in flags and "spec-model" not in flags:
        yield "--spec-tokens without --spec-method is refused; add spec-method, or leave it out"


def _structured(flags: Flags) -> Iterator[str]:
    structured = json_object(flags, "structured-outputs-config")
    backend = structured.get("backend", "auto")
    if structured.get("disable_any_whitespace") and backend not in {"xgrammar", "guidance"}:
        yield "--structured-outputs-config: disable_any_whitespace needs the backend xgrammar or guidance; set it"
    if structured.get("disable_additional_properties") and backend != "guidance":
        yield "--structured-outputs-config: disable_additional_properties needs the backend guidance; set it"


def _connections(flags: Flags) -> Iterator[str]:
    profiler, connector = json_object(flags, "profiler-config"), json_object(flags, "kv-transfer-config")
    if (profiler.get("profiler") == "torch") != bool(profiler.get("torch_profiler_dir")):
        yield "--profiler-config needs both profiler: torch and torch_profiler_dir, or neither; correct it"
    if connector and not connector.get("kv_connector"):
        yield "--kv-transfer-config names no kv_connector; add it"
    if connector.get("kv_connector") and not connector.get("kv_role"):
        yield "--kv-transfer-config names no kv_role; write kv_both, kv_producer or kv_consumer"


def _texts(flags: Flags) -> Iterator[str]:
    template = flags.get("chat-template")
    if isinstance(template, str) and not template.startswith("/") and not set(template) & set("{}\n"):
        yield f"--chat-template {template} is neither a template nor an absolute path; write one"
    devices = str(flags.get("device-ids", "")).replace(" ", "").split(",")
    if len(set(devices)) < len(devices):
        yield "--device-ids names a GPU twice; name each once"
    if len({one.isdecimal() for one in devices}) > 1:
        yield "--device-ids mixes numbers and names; use one of them"
    ranges = re.findall(r"(\d+)-(\d+)", str(flags.get("numa-bind-cpus", "")))
    if any(int(first) > int(last) for first, last in ranges):
        yield f"--numa-bind-cpus {flags['numa-bind-cpus']} has a descending range; write the lower CPU first"
    for module in str(flags.get("lora-modules", "")).split():
        if "=" not in module and not module.startswith("{"):
            yield f"--lora-modules {module} is not NAME=PATH; write it so"
