"""Decides how vLLM is started for a deployment: its arguments, its environment, and the memory that it then uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs, host_paths, memory
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.memory_settings import MemorySettings

if TYPE_CHECKING:
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.engine_arguments import FlagValue
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.selection import Selection

_USUAL_SEQUENCES = 256
"""Up to so many sequences, vLLM's default captures a graph for each number. More get an explicit size, as measured."""


def arguments(deployment: Deployment, selection: Selection) -> EngineArguments:
    """VLLM's arguments, in the order of the command line; those of the stack file win."""
    own, precision, count = deployment.engine.flags, selection.precision, deployment.machine.count
    flags: dict[str, FlagValue] = {
        "model": host_paths.weights_directory(precision.repository, precision.revision),
        "served-model-name": selection.model.name,
        "host": host_paths.ENGINE_ADDRESS,
        "port": host_paths.ENGINE_PORT,
        **selection.model.flags,
        **selection.engine.flags,
        **selection.expert_flags,
        "max-model-len": deployment.context,
        "max-num-seqs": deployment.sequences,
    }
    if deployment.sequences > _USUAL_SEQUENCES and selection.engine.runs_on == "cuda":
        flags["max-cudagraph-capture-size"] = cuda_graphs.capture_size_for(deployment.sequences)
    if count > 1:
        flags |= {"tensor-parallel-size": count, **selection.engine.tensor_parallel["flags"]}
    written = EngineArguments.of(own)
    if memory.accepts_images(selection.model.dimensions, written) and written.chunked_prefill:
        flags |= selection.vision_flags
    # Several GPUs and images need more memory above vLLM's limit, so the limit may have to be lower.
    budget = memory_budget(selection, EngineArguments.of({**flags, **own}))
    if budget is not None and budget.safe_utilization:
        usual = float(flags["gpu-memory-utilization"])
        flags["gpu-memory-utilization"] = min(usual, budget.safe_utilization)
    return EngineArguments.of({**flags, **own})


def environment(deployment: Deployment, selection: Selection) -> dict[str, str]:
    """VLLM's environment. All caches are on the volume, so that a replacement host starts warm."""
    caches = host_paths.cache_directory(selection.engine.version)
    variables = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "XDG_CACHE_HOME": caches,
        "VLLM_CACHE_ROOT": f"{caches}/vllm",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TORCH_EXTENSIONS_DIR": f"{caches}/extensions",
        "FLASHINFER_WORKSPACE_BASE": f"{caches}/flashinfer",
        "CUDA_CACHE_PATH": f"{caches}/cuda",
        **selection.engine.environment,
    }
    if deployment.machine.count > 1:
        variables |= selection.engine.tensor_parallel["environment"]
    return variables


def memory_budget(selection: Selection, chosen: EngineArguments) -> Budget | None:
    """The memory of one GPU with these arguments; None for an engine that runs on the CPU."""
    if selection.engine.runs_on == "cpu":
        return None
    settings = MemorySettings.of(chosen, selection.engine, selection.model.maximum_context)
    return memory.budget(
        selection.model.dimensions, selection.precision, selection.engine, selection.gpu, settings
    )
