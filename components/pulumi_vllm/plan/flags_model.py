"""Rules of the lint about what the parser takes, this model's weights and chats, and its environment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pulumi_vllm.plan import engine_arguments as load
from pulumi_vllm.plan import flags_schema
from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.flags import Launch

    Said = Iterator[tuple[str, str, str]]


def unknown(launch: Launch) -> Said:
    """An argument that this vLLM version does not have."""
    for sentence in flags_schema.unknown(launch.flags, launch.engine.version):
        yield "error", sentence, f"the parser of vLLM {launch.engine.version}"


def value(launch: Launch) -> Said:
    """A value that vLLM's parser refuses."""
    given = {name: value for name, value in launch.flags.items() if name != "dtype"}  # it has its own rule
    for sentence in flags_schema.wrong(given, launch.engine.version):
        yield "error", sentence, f"the parser of vLLM {launch.engine.version}"


def below_one(launch: Launch) -> Said:
    """A count below 1, which the parser takes and the start refuses."""
    for name in load.COUNTS:
        found = load.whole(launch.flags.get(name))
        automatic = name == "max-model-len" and found == -1
        if found is not None and found < 1 and not automatic:
            sentence = f"--{name} {launch.flags[name]}: is below 1, and vLLM does not start; write 1 or more"
            yield "error", sentence, "the checks of vLLM 0.26.0's configuration (source)"


def batch(launch: Launch) -> Said:
    """A batch that is smaller than what has to be in one."""
    tokens = load.count(launch.flags.get("max-num-batched-tokens"))
    many = load.count(launch.flags.get("max-num-seqs"))
    length = load.count(launch.flags.get("max-model-len")) or launch.model.maximum_context
    evidence = "SchedulerConfig.verify_max_model_len of vLLM 0.26.0 (source)"
    if tokens is None:
        return  # vLLM's own is made to suit
    if many is not None and tokens < many:
        sentence = (
            f"--max-num-batched-tokens {tokens}: is below the {many} requests of --max-num-seqs, and vLLM does not "
            f"start; use {many} or more"
        )
        yield "error", sentence, evidence
    if launch.flags.get("enable-chunked-prefill") is False and tokens < length:
        sentence = (
            f"--max-num-batched-tokens {tokens} without chunked prefill: a prompt of {length:,} tokens has to fit, and "
            f"vLLM does not start; use {length} or more"
        )
        yield "error", sentence, evidence


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
    forked = launch.environment.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork"
    if forked and launch.flags.get("mm-tensor-ipc") == "torch_shm":
        sentence = "--mm-tensor-ipc torch_shm: refused where the processes are forked, as here; leave it out"
        yield "error", sentence, "VllmConfig of 0.26.0"


def repository(launch: Launch) -> Said:
    """A repository that does not exist."""
    name = str(launch.flags.get("model", ""))
    known = [one.repository for one in launch.model.precisions.values()]
    if name and not name.startswith(("/", ".")) and name not in known:
        sentence = f"--model {name}: not a repository of this model; {suggestion(name, known)}"
        yield "error", sentence, "the public records of the weights"


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


def image_limit(launch: Launch) -> Said:
    """A limit of a request's images that is JSON, and no limit."""
    written = launch.flags.get("limit-mm-per-prompt")
    try:
        given = json.loads(str(written)) if written is not None else {}
    except ValueError:
        return  # the rule about values tells
    counts = (
        [one.get("count", 0) if isinstance(one, dict) else one for one in given.values()]
        if isinstance(given, dict)
        else [None]
    )
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        sentence = (
            f"--limit-mm-per-prompt {written}: is no object of whole numbers, and vLLM does not start; "
            'write for example {"image": 4}'
        )
        yield "error", sentence, "MultiModalConfig of vLLM 0.26.0 (source)"


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
    asked = {**launch.model.flags, **launch.flags}
    if "mistral" not in (asked.get("tokenizer-mode"), asked.get("tool-call-parser")):
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
