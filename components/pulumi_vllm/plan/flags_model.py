"""Rules of the lint about what the parser takes, and about this model, its cache and its host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import flags_schema, units
from .mistakes import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .flags import Launch

    Said = Iterator[tuple[str, str, str]]

MEASURED_TOKENS = 768
"""Of one request of the measured load: 512 in and 256 out (2026-11-23)."""


def unknown(launch: Launch) -> Said:
    """An argument that this vLLM version does not have."""
    for sentence in flags_schema.unknown(launch.flags, launch.engine.version):
        yield "error", sentence, f"the parser of vLLM {launch.engine.version}"


def value(launch: Launch) -> Said:
    """A value that vLLM's parser refuses."""
    given = {name: value for name, value in launch.flags.items() if name != "dtype"}  # it has its own rule
    for sentence in flags_schema.wrong(given, launch.engine.version):
        yield "error", sentence, f"the parser of vLLM {launch.engine.version}"


def deprecated(launch: Launch) -> Said:
    """An argument that will go."""
    for sentence in flags_schema.deprecated(launch.flags, launch.engine.version):
        yield "warning", sentence, f"the parser of vLLM {launch.engine.version}"


def conflict(launch: Launch) -> Said:
    """Arguments that only work together."""
    if launch.flags.get("enable-auto-tool-choice") and "tool-call-parser" not in launch.flags:
        sentence = (
            "--enable-auto-tool-choice without --tool-call-parser: refused; add tool-call-parser: mistral"
        )
        yield "error", sentence, "the argument check of vLLM 0.33.0, run"


def repository(launch: Launch) -> Said:
    """A repository that does not exist."""
    name = str(launch.flags.get("model", ""))
    known = [one.repository for one in launch.model.precisions.values()]
    if name and not name.startswith(("/", ".")) and name not in known:
        sentence = f"--model {name}: not a repository of this model; {nearest(name, known)}"
        yield "error", sentence, "the public records of the weights"


def context(launch: Launch) -> Said:
    """A context beyond the model or the cache, or none."""
    written = launch.flags.get("max-model-len")
    if written is None:
        sentence = (
            f"no --max-model-len: the configuration advertises {launch.model.dimensions.rope_positions:,} tokens; "
            f"set it, at most {launch.model.maximum_context}"
        )
        yield "warning", sentence, "the published configuration against the vendor's limit"
        return
    try:
        tokens = units.tokens(written)
    except ValueError:
        return  # "auto", or what the rule about values tells
    if tokens > launch.model.maximum_context:
        sentence = (
            f"--max-model-len {written}: beyond what the vendor supports; use {launch.model.maximum_context}"
        )
        yield "error", sentence, "the vendor's limit"
    elif launch.kv_tokens is not None and tokens > launch.kv_tokens:
        sentence = f"--max-model-len {written}: the KV cache holds {launch.kv_tokens:,} tokens; use fewer"
        yield "error", sentence, "computed from published dimensions"


def sequences(launch: Launch) -> Said:
    """More requests at once than the cache can serve."""
    written = str(launch.flags.get("max-num-seqs", ""))
    if launch.kv_tokens is None or not written.isdecimal() or not int(written):
        return
    if launch.kv_tokens < int(written) * MEASURED_TOKENS:
        each = launch.kv_tokens // int(written)
        sentence = (
            f"--max-num-seqs {written}: the KV cache leaves each request {each:,} tokens, and vLLM preempts "
            f"the rest; use {max(1, launch.kv_tokens // MEASURED_TOKENS)} or fewer"
        )
        yield "warning", sentence, f"computed; the measured load took {MEASURED_TOKENS} tokens a request"


def driver(launch: Launch) -> Said:
    """A driver that is too old for the engine."""
    floor = launch.engine.driver_floor
    if launch.driver is None or floor is None:
        return
    if [int(part) for part in launch.driver.split(".")] < [int(part) for part in floor.split(".")]:
        sentence = (
            f"driver {launch.driver}: vLLM {launch.engine.version} needs {floor} or newer; rent another host"
        )
        yield "error", sentence, "CUDA 13.0 needs it (published)"


def reasoning(launch: Launch) -> Said:
    """A reasoning effort that every request would be refused for."""
    for flag in ("default-chat-template-kwargs", "reasoning-effort-map"):
        try:
            given = json.loads(str(launch.flags.get(flag, "{}")))
        except ValueError:
            continue
        values = given.values() if flag.endswith("map") else [given.get("reasoning_effort", "none")]
        for one in values:
            if one not in ("none", "high"):
                sentence = f"--{flag}: reasoning_effort {one} answers 400; use none or high"
                yield "error", sentence, "run on the CPU build 0.32.0 with mistral_common 1.12.0"


def prefix_caching(launch: Launch) -> Said:
    """Prefix caching switched off."""
    if launch.flags.get("enable-prefix-caching") is False:
        sentence = "--no-enable-prefix-caching: it works, with an fp8 KV cache too; leave it on"
        yield "warning", sentence, "the configuration check of vLLM 0.33.0 accepts both, run"


def environment(launch: Launch) -> Said:
    """Environment that does nothing, or harm."""
    if "HF_HUB_ENABLE_HF_TRANSFER" in launch.environment:
        sentence = "HF_HUB_ENABLE_HF_TRANSFER is ignored; leave it out"
        yield "warning", sentence, "huggingface_hub 2.4.0, run: a FutureWarning"
    if launch.environment.get("VLLM_MLA_DISABLE") == "1" and launch.engine.runs_on == "cuda":
        sentence = "VLLM_MLA_DISABLE=1 makes the KV cache 25 times as large; leave it out"
        yield "warning", sentence, "589,824 against 23,040 bytes a token, computed"


def mistral_common(launch: Launch) -> Said:
    """A mistral_common with which every chat answers 400."""
    if "mistral" not in (launch.flags.get("tokenizer-mode"), launch.flags.get("tool-call-parser")):
        return
    evidence = "force_tool_names missing in get_lark_from_jinja, run on 0.32.0 with 1.13.1"
    locks = launch.engine.locks()
    if not locks:
        sentence = (
            f"vLLM {launch.engine.version} takes the newest mistral_common, with which every chat answers 400; "
            "pin mistral_common<1.13"
        )
        yield "warning", sentence, evidence
    for minor, text in locks.items():
        lines = (line for line in text.splitlines() if line.startswith("mistral-common=="))
        version = next((line.split("==")[1].split()[0] for line in lines), None)
        if version is not None and tuple(int(part) for part in version.split(".")[:2]) >= (1, 13):
            sentence = (
                f"the lock for python {minor} holds mistral_common {version}, with which every chat answers "
                "400; compile it with mistral_common<1.13"
            )
            yield "error", sentence, evidence
