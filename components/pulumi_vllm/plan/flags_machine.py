"""Rules of the lint about GPUs: their memory, their kernels, how the model is divided over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import engine_arguments as load
from pulumi_vllm.plan import pricing as price

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.catalogue import Dimensions
    from pulumi_vllm.plan.flags import Launch
    from pulumi_vllm.plan.memory import Budget

    Said = Iterator[tuple[str, str, str]]

COMPUTED = "computed from published dimensions"
RUN = "run on 2026-11-23 with vLLM 0.26.0 on H200"
MEASURED_TOKENS = 768
"""Of one request of the measured load: 512 in and 256 out (2026-11-23)."""
_FLASHMLA_HEAD = 576
"""The only latent that the compiled FlashMLA kernels take."""
_BLACKWELL = ("FLASHINFER_MLA", "CUTLASS_MLA", "TOKENSPEED_MLA")


def context(launch: Launch) -> Said:
    """A context beyond the model or the cache, or none."""
    written = launch.flags.get("max-model-len")
    if written is None:
        sentence = (
            f"no --max-model-len: the configuration advertises {launch.model.dimensions.rope_positions:,} tokens; "
            f"set it, at most {launch.model.maximum_context}"
        )
        yield "warning", sentence, "the published configuration against the vendor's limit"
        if launch.budget is not None and launch.budget.short_gib:
            yield "error", _no_room("no --max-model-len", launch.budget), COMPUTED
        return
    tokens, budget = load.whole(written), launch.budget
    if tokens is None or tokens < 1:  # "auto", which takes what there is, or what another rule tells
        if budget is not None and not budget.kv_tokens:
            yield "error", _no_room(f"--max-model-len {written}", budget), COMPUTED
        return
    if tokens > launch.model.maximum_context:
        sentence = (
            f"--max-model-len {written}: beyond what the vendor supports; use {launch.model.maximum_context}"
        )
        yield "error", sentence, "the vendor's limit"
    elif budget is not None and budget.short_gib:
        yield "error", _no_room(f"--max-model-len {written}", budget), COMPUTED


def _no_room(written: str, budget: Budget) -> str:
    """What takes the memory, and what to do."""
    remedy = "use more or larger GPUs"
    if budget.kv_tokens:
        remedy = f"use {budget.kv_tokens} or fewer"
    elif budget.weights_gib < budget.visible_gib:
        higher = budget.limit_gib < budget.safe_utilization * budget.visible_gib
        ways = ["a higher --gpu-memory-utilization"] if higher else []
        ways.append("fewer --max-num-batched-tokens")
        ways += (
            ["--language-model-only"]
            if budget.images_per_step and budget.weights_gib < budget.limit_gib
            else []
        )
        remedy = f"use {', '.join(ways)} or more GPUs"
    reading = f" for reading {counted(budget.images_per_step)} at once" if budget.images_per_step else ""
    return (
        f"{written}: {budget.short_gib:.2f} GiB per GPU are missing, weights take {budget.weights_gib:.1f} and "
        f"activation {budget.activation_gib:.1f}{reading} of {budget.limit_gib:.1f} GiB, and the KV cache holds "
        f"{budget.kv_tokens:,} tokens; {remedy}"
    )


def counted(images: int) -> str:
    """So many images, in words."""
    return f"{images} images" if images > 1 else "an image"


def sequences(launch: Launch) -> Said:
    """More requests at once than the cache can serve."""
    many = load.count(launch.flags.get("max-num-seqs"))
    if launch.budget is None or launch.budget.short_gib or not many:
        return
    tokens = launch.budget.kv_tokens
    if tokens < many * MEASURED_TOKENS:
        sentence = (
            f"--max-num-seqs {many}: the KV cache leaves each request {tokens // many:,} tokens, and vLLM "
            f"preempts the rest; use {max(1, tokens // MEASURED_TOKENS)} or fewer"
        )
        yield "warning", sentence, f"computed; the measured load took {MEASURED_TOKENS} tokens a request"


def utilization(launch: Launch) -> Said:
    """A part of the memory that is none, or that leaves no room for what grows beyond it."""
    written, budget = launch.flags.get("gpu-memory-utilization"), launch.budget
    if load.number(written) is not None and load.utilization(written) is None:
        sentence = f"--gpu-memory-utilization {written}: is not a part of the memory; use 0.95"
        yield "error", sentence, "the configuration check of vLLM 0.33.0, run"
    elif budget is not None and budget.beyond_gib > budget.above_limit_gib:
        flag = f"--gpu-memory-utilization {written}"
        if written is None:
            flag = f"no --gpu-memory-utilization (vLLM's own {budget.limit_gib / budget.visible_gib:.2f})"
        sentence = f"{flag}: {beyond(budget, 'take')}; {make_room(budget, '--')}"
        evidence = "0.99 ran out of memory on one H200 and 0.98 started, 2026-11-24"
        if (load.count(launch.flags.get("tensor-parallel-size")) or 1) > 1:  # as the headroom
            evidence = "0.95 ran out of memory on two H100 under load, 2026-11-26"
        if budget.accepts_images:
            evidence = "requests with five images ended vLLM on one H100, two H100 and one H200, 2026-11-26"
        yield "error", sentence, evidence


def beyond(budget: Budget, take: str) -> str:
    """What is taken above vLLM's limit, and what is left for it."""
    what = "CUDA graphs, fragments and images" if budget.accepts_images else "CUDA graphs and fragments"
    return f"{what} {take} {budget.beyond_gib:.2f} GiB above the limit, and {budget.above_limit_gib:.2f} are left"


def make_room(budget: Budget, dashes: str = "") -> str:
    """What leaves more there."""
    ways = [f"{budget.safe_utilization:.2f} or less"] if budget.safe_utilization else []
    ways += [f"a smaller {dashes}max-num-batched-tokens"] if budget.burst_gib else []
    ways += [f"{dashes}language-model-only"] if budget.accepts_images else []
    return f"use {', or '.join(ways)}"


def uncounted(launch: Launch) -> Said:
    """Arguments that move memory in a way that the plan's figures leave out."""
    named = [name for name in load.UNCOUNTED if launch.flags.get(name) not in (None, False)]
    if load.accepts_images(launch.model.dimensions, launch.flags):
        named += ["skip-mm-profiling"] if launch.flags.get("skip-mm-profiling") else []
        named += ["mm-encoder-tp-mode"] if launch.flags.get("mm-encoder-tp-mode") == "data" else []
    if named:
        written = ", ".join(f"--{name}" for name in named)
        sentence = f"{written}: the plan's memory figures leave this out; try it before you rely on them"
        yield "warning", sentence, "no formula of ours, and no start of ours, has it"


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


def parallel(launch: Launch) -> Said:
    """A division over GPUs that the model or the machine does not have."""
    written, sizes = str(launch.flags.get("tensor-parallel-size", 1)), launch.model.dimensions
    if not written.isdecimal() or int(written) < 1:
        return  # the rules about values tell
    ways, kv_heads = int(written), sizes.attention.get("kv_heads")
    right = " or ".join(str(one) for one in range(1, max(price.COUNTS) + 1) if _divides(one, sizes))
    if sizes.heads % ways:
        heads = f"the {sizes.heads} attention heads"
        sentence = f"--tensor-parallel-size {ways} does not divide {heads}; use {right}"
        yield (
            "error",
            sentence,
            "vLLM: total number of attention heads must be divisible by tensor parallel size",
        )
        return
    if not _divides(ways, sizes):
        sentence = f"--tensor-parallel-size {ways} does not divide the {kv_heads} KV heads; use {right}"
        yield "error", sentence, "vLLM's grouped-query attention asserts it (source of 0.33.0)"
    needed = load.ranks(launch.flags)
    if launch.engine.runs_on == "cuda" and needed is not None and needed > launch.gpu_count:
        how = (
            f"--tensor-parallel-size {ways}"
            if needed == ways
            else "tensor x pipeline x prefill context x data parallel"
        )
        sentence = f"{how} needs {needed} GPUs, the machine has {launch.gpu_count}; use fewer"
        yield "error", sentence, "one rank per GPU"


def _divides(ways: int, sizes: Dimensions) -> bool:
    """Whether the heads can be divided so: a KV head may also be on several GPUs."""
    kv_heads = sizes.attention.get("kv_heads")
    return not sizes.heads % ways and not (kv_heads and kv_heads % ways and ways % kv_heads)


def idle(launch: Launch) -> Said:
    """GPUs that are paid for and that no rank uses."""
    used = load.ranks(launch.flags)
    if launch.engine.runs_on == "cuda" and used is not None and used < launch.gpu_count:
        sentence = (
            f"the flags use {used} of the machine's {launch.gpu_count} GPUs and the rest idles, paid for; leave "
            f"--tensor-parallel-size out, or rent {used}"
        )
        yield "error", sentence, "one rank per GPU: tensor x pipeline x prefill context x data parallel"


def kv_cache(launch: Launch) -> Said:
    """A type of the KV cache that this model's attention can't have on Hopper."""
    value = str(launch.flags.get("kv-cache-dtype", "auto"))
    if not _narrow_mla(launch):
        return
    if value in ("fp8_e5m2", "nvfp4"):
        sentence = f"--kv-cache-dtype {value}: no attention back end takes it on Hopper; leave it at 16 bit"
        yield (
            "error",
            sentence,
            "the back ends' own check, compute capability 9.0, head size 320, vLLM 0.33.0, run",
        )
    elif value.startswith("fp8") and launch.flags.get("attention-backend") == "TRITON_MLA":
        sentence = (
            f"--kv-cache-dtype {value} with TRITON_MLA: the start stands in the capture of the decode graphs; "
            "leave the KV cache at 16 bit"
        )
        yield "error", sentence, f"not ready after 260 s, {RUN}"
    elif value.startswith("fp8"):
        sentence = (
            f"--kv-cache-dtype {value}: vLLM picks FLASHMLA, which dies for this model after about 100 s; "
            "leave the KV cache at 16 bit"
        )
        yield "error", sentence, f"'Only head_size_k == 576 is supported', {RUN}"


def attention(launch: Launch) -> Said:
    """An attention back end that this model can't have on Hopper."""
    value = str(launch.flags.get("attention-backend", "")).upper()
    if launch.engine.runs_on != "cuda":
        return
    if value in _BLACKWELL:
        sentence = f"--attention-backend {value}: is for Blackwell; leave it out"
        yield "error", sentence, "source of vLLM 0.33.0"
    elif value == "FLASHMLA" and _narrow_mla(launch):
        sentence = "--attention-backend FLASHMLA: dies for this model's head size; leave it out"
        yield "error", sentence, f"'Only head_size_k == 576 is supported', {RUN}"


def _narrow_mla(launch: Launch) -> bool:
    """Latent attention of a size for which FlashMLA was not compiled, on a GPU."""
    sizes = launch.model.dimensions.attention
    if sizes["kind"] != "mla" or launch.engine.runs_on != "cuda":
        return False
    return int(sizes["kv_lora_rank"] + sizes["qk_rope_head_dim"]) != _FLASHMLA_HEAD


def experts(launch: Launch) -> Said:
    """A back end for the experts that is refused, or that compiles for ten minutes."""
    if launch.model.dimensions.mlp["kind"] != "moe" or launch.engine.runs_on != "cuda":
        return
    value, precision = launch.flags.get("moe-backend", "auto"), launch.precision.name
    if value == "humming" and precision != "fp8":
        sentence = "--moe-backend humming: vLLM 0.26.0 refuses it on this GPU; leave it out"
        yield "error", sentence, f"'kernel does not support current device cuda', {RUN}"
    elif precision == "fp8" and value in ("auto", "flashinfer_cutlass"):
        sentence = (
            "the default MoE back end compiles its kernels for ten minutes at the first start and looks like a "
            "hang; set moe-backend: triton"
        )
        yield "warning", sentence, f"FLASHINFER_CUTLASS was not ready after 565 s on 16 cores, {RUN}"
    elif precision == "fp8" and value == "cutlass":
        sentence = "--moe-backend cutlass: vLLM refuses it for these weights; set moe-backend: triton"
        evidence = "'vLLM CUTLASS FP8 MoE backend is disabled for this configuration'"
        yield "error", sentence, f"{evidence}, {RUN}"
    elif precision == "nvfp4" and value == "auto" and _minor(launch.engine.version) >= _HUMMING_FIRST:
        sentence = "the default MoE back end is humming here, never started by us; set moe-backend: marlin"
        yield (
            "warning",
            sentence,
            "source of vLLM 0.32.0 and 0.33.0; 0.26.0 picked marlin and refused humming",
        )


_HUMMING_FIRST = (0, 32)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2])


def nvfp4(launch: Launch) -> Said:
    """What 4-bit weights do on Hopper."""
    if launch.precision.name == "nvfp4":
        sentence = (
            "NVFP4 on Hopper saves memory, time only where the bandwidth is short, and the quality of its answers is "
            "unverified; check it on your own prompts"
        )
        evidence = (
            "of FP8's rate: 0.90 at 128 streams on one H200 (2026-11-24), 1.22 at 32 and 1.12 at 128 on two H100 "
            "(2026-11-26), random weights, vLLM 0.26.0"
        )
        yield "warning", sentence, evidence
