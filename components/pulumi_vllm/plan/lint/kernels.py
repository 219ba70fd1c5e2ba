"""Rules about data types and kernels: what a GPU or a model has no kernel for, or a slow one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import vllm_parser
from pulumi_vllm.plan.engine_arguments import whole_number
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_RUN = "run on 2026-11-23 with vLLM 0.26.0 on H200"
_FLASHMLA_HEAD = 576
"""The only size of a latent for which the FlashMLA kernels are compiled."""
_MAJORS = {
    "FLASHINFER_MLA": (10,),
    "CUTLASS_MLA": (10,),
    "TOKENSPEED_MLA": (10,),
    "FLASHMLA": (9, 10),
    "FLASH_ATTN_MLA": (9,),
}
"""Attention backend → major compute capabilities that it supports (supports_compute_capability, vLLM 0.33.0)."""
_MOE_MAJORS = {"flashinfer_trtllm": (10,), "flashinfer_cutlass": (9, 10, 12)}
"""MoE backend → major compute capabilities that it supports (source of vLLM 0.33.0)."""
_GENERATIONS = {8: "Ampere and Ada", 9: "Hopper", 10: "Blackwell for data centres", 12: "Blackwell RTX"}
_FP8_FROM, _NVFP4_FROM, _BF16_FROM = (8, 9), (10, 0), (8, 0)
"""Compute capabilities with FP8, 4-bit and bfloat16 arithmetic (CUDA programming guide; source of vLLM 0.33.0)."""
_BLOCK = 16
"""Every attention backend for GPUs takes multiples of this many tokens (FLASHMLA only 64)."""
_HUMMING_SINCE = (0, 32)
"""vLLM release from which humming is the default MoE backend for NVFP4; 0.33.0 was started with it on one H200."""


def dtype(launch: Launch) -> Problems:
    """A computation type that vLLM or the GPU does not have."""
    value = launch.arguments.flags.get("dtype")
    if launch.on_gpu and launch.capability < _BF16_FROM and value in (None, "auto", "bfloat16"):
        yield error(
            f"{launch.gpu_words} has no bfloat16, in which the weights are computed, and vLLM does not start; set "
            "dtype: half",
            "the platform's check of the type, source of vLLM 0.33.0",
        )
    if value not in (None, "auto", "bfloat16", "float", "float16", "float32", "half"):
        yield error(
            f"--dtype {value}: vLLM's argument parser refuses it; leave it out, the weights define their own type",
            "the parser of vLLM 0.33.0, run: invalid choice",
        )


def kv_cache_dtype(launch: Launch) -> Problems:
    """A KV cache type that this model's attention does not support on the GPU."""
    value = str(launch.arguments.flags.get("kv-cache-dtype", "auto"))
    is_mla = launch.model.dimensions.attention["kind"] == "mla"
    if is_mla and launch.on_gpu and value.startswith("fp8") and launch.capability < _FP8_FROM:
        yield error(
            f"--kv-cache-dtype {value}: {launch.gpu_words} has no FP8, and TRITON_MLA, the only backend for this model "
            "there, refuses it; leave the KV cache at 16 bit",
            "TritonMLAImpl of vLLM 0.33.0 (source)",
        )
    if not _lacks_flashmla(launch) or not launch.on_hopper:
        return
    if value in ("fp8_e5m2", "nvfp4"):
        yield error(
            f"--kv-cache-dtype {value}: no attention backend supports it on Hopper; leave the KV cache at 16 bit",
            "the backends' own check, compute capability 9.0, head size 320, vLLM 0.33.0, run",
        )
    elif value.startswith("fp8") and launch.arguments.flags.get("attention-backend") == "TRITON_MLA":
        yield error(
            f"--kv-cache-dtype {value} with TRITON_MLA: startup hangs during CUDA graph capture; leave the KV cache at "
            "16 bit",
            f"not ready after 260 s, {_RUN}",
        )
    elif value.startswith("fp8"):
        yield error(
            f"--kv-cache-dtype {value}: vLLM selects FLASHMLA, which crashes with this model after about 100 s; leave "
            "the KV cache at 16 bit",
            f"'Only head_size_k == 576 is supported', {_RUN}",
        )


def attention_backend(launch: Launch) -> Problems:
    """An attention backend that the GPU, or this model on Hopper, cannot use."""
    value = str(launch.arguments.flags.get("attention-backend", "")).upper()
    if not launch.on_gpu:
        return
    majors = _MAJORS.get(value)
    if majors is not None and launch.capability[0] not in majors:
        yield error(
            f"--attention-backend {value} is for {_named(majors)}, and this is {launch.gpu_words}; leave it out",
            "supports_compute_capability of the backend, source of vLLM 0.33.0",
        )
    elif value == "FLASHMLA" and _lacks_flashmla(launch) and launch.on_hopper:
        yield error(
            "--attention-backend FLASHMLA crashes with this model's head size; leave it out",
            f"'Only head_size_k == 576 is supported', {_RUN}",
        )


def quantization(launch: Launch) -> Problems:
    """A quantization other than the one that the weights define."""
    value = launch.arguments.flags.get("quantization")
    methods = vllm_parser.accepted(launch.engine.version).get("quantization", {})
    known = methods.get("values", ())
    if value in methods.get("retired", ()) and not launch.arguments.flags.get(
        "allow-deprecated-quantization"
    ):
        yield error(
            f"--quantization {value} is deprecated, and vLLM does not start; leave it out, the weights define theirs",
            f"the quantization methods of vLLM {launch.engine.version}",
        )
    elif value is not None and known and value not in known:
        published = ", ".join(launch.model.precisions)
        yield error(
            f"--quantization {value}: vLLM has no such method; {launch.model.name} is published in {published}",
            f"the quantization methods of vLLM {launch.engine.version}",
        )
    elif value is not None:
        yield warning(
            f"--quantization {value} is not needed, because the weights define their quantization; leave it out",
            "the configuration file of the published weights",
        )


def moe_backend(launch: Launch) -> Problems:
    """A backend for the experts that vLLM refuses, or that compiles for ten minutes."""
    if launch.model.is_moe and launch.on_gpu:
        yield from _moe_backend_by_capability(launch)
    if not launch.model.is_moe or not launch.on_hopper or launch.precision.block_scales:
        return
    value, precision = launch.arguments.flags.get("moe-backend", "auto"), launch.precision.name
    if value == "humming" and precision != "fp8" and release(launch.engine.version) < _HUMMING_SINCE:
        yield error(
            "--moe-backend humming: vLLM 0.26.0 refuses it on this GPU; leave it out",
            f"'kernel does not support current device cuda', {_RUN}",
        )
    elif precision == "fp8" and value in ("auto", "flashinfer_cutlass"):
        yield warning(
            "the default MoE backend compiles its kernels for ten minutes at the first start, which looks like a hang; "
            "set moe-backend: triton",
            f"FLASHINFER_CUTLASS was not ready after 565 s on 16 cores, {_RUN}",
        )
    elif precision == "fp8" and value == "cutlass":
        yield error(
            "--moe-backend cutlass: vLLM refuses it for these weights; set moe-backend: triton",
            f"'vLLM CUTLASS FP8 MoE backend is disabled for this configuration', {_RUN}",
        )


def _moe_backend_by_capability(launch: Launch) -> Problems:
    """A backend for the experts that has no kernel for the GPU."""
    value, precision = launch.arguments.flags.get("moe-backend"), launch.precision.name
    majors = _MOE_MAJORS.get(str(value))
    if majors is not None and launch.capability[0] not in majors:
        yield error(
            f"--moe-backend {value} is for {_named(majors)}, and this is {launch.gpu_words}; leave it out",
            "_supports_current_device of the backend, source of vLLM 0.33.0",
        )
    if value == "triton" and precision == "fp8" and launch.capability < _FP8_FROM:
        yield error(
            f"--moe-backend triton: {launch.gpu_words} has no FP8, which this backend computes in; leave it out, and "
            "vLLM takes Marlin, which reads the weights in 8 bit and computes in 16",
            "TritonExperts of vLLM 0.33.0 (source)",
        )


def _named(majors: tuple[int, ...]) -> str:
    return " and ".join(_GENERATIONS[major] for major in majors)


def block_size(launch: Launch) -> Problems:
    """A block of the KV cache that no attention backend of the GPU takes."""
    found = whole_number(launch.arguments.flags.get("block-size"))
    if launch.on_gpu and found is not None and found > 0 and found % _BLOCK:
        lower = found // _BLOCK * _BLOCK
        yield error(
            f"--block-size {found} is not a multiple of {_BLOCK}, and no attention backend takes it; use "
            f"{' or '.join(str(one) for one in (lower, lower + _BLOCK) if one)}",
            "get_supported_kernel_block_sizes of the backends of vLLM 0.26.0 and 0.33.0 (source)",
        )


def nvfp4_on_hopper(launch: Launch) -> Problems:
    """4-bit weights on Hopper, which has no 4-bit arithmetic."""
    if launch.precision.name == "nvfp4" and launch.on_hopper:
        yield warning(
            "NVFP4 on Hopper saves memory. It saves time only where memory bandwidth is the bottleneck, and the "
            "quality of its answers is unverified; check it with your own prompts",
            "throughput relative to FP8: 0.90 at 128 streams on one H200 (2026-11-24), 1.22 at 32 and 1.12 at 128 on "
            "two H100 (2026-11-26), random weights, vLLM 0.26.0",
        )


def weights_without_arithmetic(launch: Launch) -> Problems:
    """Weights in a precision that the GPU, which is not Hopper, only reads: it computes in 16 bit."""
    floor = {"fp8": _FP8_FROM, "nvfp4": _NVFP4_FROM, "mxfp4": _NVFP4_FROM}.get(launch.precision.name)
    if floor is None or not launch.on_gpu or launch.on_hopper or launch.capability >= floor:
        return
    yield warning(
        f"{launch.gpu_words} has no arithmetic in {launch.precision.name}: vLLM reads the weights by Marlin and "
        "computes in 16 bit, which saves memory; its speed was not measured here",
        "min_capability of the schemes and the order of the kernels, source of vLLM 0.33.0",
    )


def _lacks_flashmla(launch: Launch) -> bool:
    """Whether the model has a latent of a size for which FlashMLA has no kernel."""
    attention = launch.model.dimensions.attention
    if attention["kind"] != "mla" or not launch.on_gpu:
        return False
    return int(attention["kv_lora_rank"] + attention["qk_rope_head_dim"]) != _FLASHMLA_HEAD


def release(version: str) -> tuple[int, ...]:
    """The release of a version, for comparisons: (0, 32) for 0.32.0-cpu."""
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2])
