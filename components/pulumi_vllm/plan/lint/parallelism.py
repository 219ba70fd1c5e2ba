"""Rules about how a model is divided over GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.catalogue import GPU_COUNTS
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Dimensions
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_PAIR = 2


def tensor_parallel_size(launch: Launch) -> Problems:
    """A division over GPUs that the model or the machine does not allow."""
    written, sizes = str(launch.arguments.flags.get("tensor-parallel-size", 1)), launch.model.dimensions
    if not written.isdecimal() or int(written) < 1:
        return  # other rules report such a value
    size, kv_heads = int(written), sizes.attention.get("kv_heads")
    allowed = " or ".join(str(one) for one in range(1, max(GPU_COUNTS) + 1) if _divides(one, sizes))
    flag = f"--tensor-parallel-size {size}"
    if sizes.heads % size:
        yield error(
            f"{flag} does not divide the {sizes.heads} attention heads; use {allowed}",
            "vLLM: total number of attention heads must be divisible by tensor parallel size",
        )
        return
    if not _divides(size, sizes):
        yield error(
            f"{flag} does not divide the {kv_heads} KV heads; use {allowed}",
            "vLLM's grouped-query attention asserts it (source of 0.33.0)",
        )
    needed = launch.arguments.ranks
    if launch.on_gpu and needed is not None and needed > launch.gpu_count:
        product = flag if needed == size else "tensor x pipeline x prefill context x data parallel"
        yield error(
            f"{product} needs {needed} GPUs, an engine here has {launch.gpu_count}; use fewer",
            "one rank per GPU",
        )


def slow_links(launch: Launch) -> Problems:
    """Tensor parallelism over GPUs that no NVLink connects."""
    gpu, size = launch.gpu, launch.arguments.tensor_parallel
    if gpu is None or not launch.on_gpu or size == 1:
        return
    links = "pairs of them only" if gpu.nvlink_pairs else "none of them"
    if gpu.nvlink_gb_s is None or (gpu.nvlink_pairs and size > _PAIR):
        yield warning(
            f"--tensor-parallel-size {size}: NVLink connects {links} ({gpu.name}), so each layer's results cross PCIe, "
            "which is slower; its speed was not measured here",
            "NVIDIA's data sheet",
        )


def idle_gpus(launch: Launch) -> Problems:
    """GPUs of the machine that no rank uses."""
    used = launch.arguments.ranks
    if launch.on_gpu and used is not None and used < launch.gpu_count:
        yield error(
            f"the flags use {used} of the machine's {launch.gpu_count} GPUs, and the others idle but are billed; leave "
            f"--tensor-parallel-size out, or rent {used}",
            "one rank per GPU: tensor x pipeline x prefill context x data parallel",
        )


def _divides(size: int, sizes: Dimensions) -> bool:
    """Whether the heads can be divided so. A KV head may be replicated on several GPUs."""
    kv_heads = sizes.attention.get("kv_heads")
    return not sizes.heads % size and not (kv_heads and kv_heads % size and size % kv_heads)
