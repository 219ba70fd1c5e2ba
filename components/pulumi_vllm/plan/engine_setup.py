"""Decides how vLLM is started for a deployment: its arguments, its environment, and the memory that it then uses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs, host_paths, key_limits, memory, memory_settings
from pulumi_vllm.plan.engine_arguments import CAPTURE_SIZES, EngineArguments
from pulumi_vllm.plan.memory_settings import MemorySettings

if TYPE_CHECKING:
    from typing import Any

    from pulumi_vllm.plan.catalogue import Engine
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.engine_arguments import Flags, FlagValue
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.selection import Selection

_USUAL_SEQUENCES = 256
"""Up to so many sequences, vLLM's default captures a graph for each number. More get an explicit size, as measured."""

_OF_GRAPHS = re.compile(
    r"compilation-config|cudagraph|enforce-eager|max-cudagraph|max-num-seqs|optimization-level|performance-mode|spec"
)
"""How those arguments of a stack file begin that decide which graphs there are."""

CACHE_BYTES = "kv-cache-memory-bytes"

_BLOCK = 16
"""Tokens of one block of the KV cache, by vLLM's default."""

_NO_DOMAIN = "none.invalid"
"""A domain that cannot exist (RFC 2606). Without any domain, vLLM fetches files from everywhere."""

_LEAST_CHARACTERS = 65_536
"""A request of a small context may still hold so many characters; vLLM says then that they are too many tokens."""


def arguments(deployment: Deployment, selection: Selection) -> EngineArguments:
    """The arguments of each vLLM, in the order of the command line; those of the stack file win."""
    own, precision = deployment.engine.flags, selection.precision
    count = selection.gpus_of_each(deployment.machine.count)
    sequences = selection.sequences_of_each(deployment.sequences)
    flags: dict[str, FlagValue] = {
        "model": host_paths.weights_directory(precision.repository, precision.revision),
        "served-model-name": " ".join(served_names(deployment, selection)),
        "host": host_paths.ENGINE_ADDRESS,
        "port": host_paths.ENGINE_PORT,
        "middleware": host_paths.MIDDLEWARE,
        "allowed-media-domains": " ".join(deployment.gateway.media_domains or (_NO_DOMAIN,)),
        **selection.model.flags,
        **selection.engine.flags,
        **selection.expert_flags,
        "max-model-len": deployment.context,
        "max-num-seqs": sequences,
    }
    if key_limits.have_priorities(deployment):
        flags |= {"scheduling-policy": "priority", **selection.engine.priority_flags}
    flags |= _graphs(selection.engine, sequences, count, own)
    if count > 1:
        flags |= {"tensor-parallel-size": count, **selection.engine.tensor_parallel["flags"]}
    written = EngineArguments.of(own)
    if memory.accepts_images(selection.model.dimensions, written) and written.chunked_prefill:
        flags |= selection.vision_flags
    # Several GPUs and images need more memory above vLLM's limit, so the limit may have to be lower.
    budget = memory_budget(selection, EngineArguments.of({**flags, **own}))
    if budget is not None and budget.safe_utilization:
        usual = float(selection.engine.flags["gpu-memory-utilization"])
        flags["gpu-memory-utilization"] = min(usual, budget.safe_utilization)
    return EngineArguments.of({**flags, **own})


def _graphs(engine: Engine, sequences: int, count: int, own: Flags) -> Flags:
    """Which CUDA graphs vLLM captures on `count` GPUs, where it is not left to vLLM."""
    flags: dict[str, FlagValue] = {}
    largest = memory_settings.default_capture_size(sequences)
    own_size = EngineArguments.of(own).capture_size
    if sequences > _USUAL_SEQUENCES and engine.runs_on == "cuda" and own_size is None:
        largest = cuda_graphs.capture_size_for(sequences)
        flags["max-cudagraph-capture-size"] = largest
    if (
        engine.few_graphs
        and count == 1
        and sequences in cuda_graphs.FEW_GRAPHS
        and not any(map(_OF_GRAPHS.match, own))
    ):
        flags[CAPTURE_SIZES] = cuda_graphs.few_sizes(largest)
    return flags


def with_given_cache(arguments: EngineArguments, engine: Engine, memory: Budget | None) -> EngineArguments:
    """The arguments with the KV cache's size in bytes, so that vLLM starts without profiling its memory.

    This is for arguments that were started on such a machine, where vLLM itself found no less memory than planned.
    """
    if memory is None or not engine.given_cache or CACHE_BYTES in arguments.flags:
        return arguments
    tokens = memory.kv_tokens // _BLOCK * _BLOCK
    return EngineArguments.of({**arguments.flags, CACHE_BYTES: tokens * memory.kv_bytes_per_token})


def served_names(deployment: Deployment, selection: Selection) -> tuple[str, ...]:
    """What clients may write as `model`: the catalogue's name, the model hub's, and the aliases of the stack file."""
    names = (selection.model.name, selection.precision.repository, *deployment.aliases)
    return tuple(dict.fromkeys(names))


def request_settings(deployment: Deployment, selection: Selection) -> dict[str, Any]:
    """The middleware's configuration: how clients' requests are adapted, and what one of them may ask for."""
    asked, reading = deployment.requests, selection.model.requests
    own = asked.reasoning_efforts
    return {
        "developer_role": reading.developer_role,
        "mistral_tokenizer": selection.model.flags.get("tokenizer-mode") == "mistral",
        "reasoning_efforts": dict(reading.reasoning_efforts if own is None else own),
        "thinking_effort": reading.thinking_effort,
        "media_domains": list(deployment.gateway.media_domains),
        "places": selection.sequences_of_each(deployment.sequences),
        "limits": {
            "choices": asked.choices,
            "media": asked.media,
            "tools": asked.tools,
            "schema_kib": asked.schema_kib,
            "prompt_logprobs": asked.prompt_logprobs,
            "characters": max(_LEAST_CHARACTERS, deployment.context * asked.characters_per_token),
        },
    }


def environment(deployment: Deployment, selection: Selection) -> dict[str, str]:
    """VLLM's environment. All caches are on the volume, so that a replacement host starts warm."""
    caches = host_paths.cache_directory(selection.engine.version)
    variables = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": host_paths.ENGINE_MODULES,
        "PULUMI_VLLM_REQUESTS": host_paths.REQUESTS_CONFIG,
        "VLLM_MAX_N_SEQUENCES": str(deployment.requests.choices),
        "VLLM_MAX_IMAGE_PIXELS": str(deployment.requests.image_megapixels * 10**6),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # a redirect could lead away from the allowed domains
        "XDG_CACHE_HOME": caches,
        "VLLM_CACHE_ROOT": f"{caches}/vllm",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TORCH_EXTENSIONS_DIR": f"{caches}/extensions",
        "FLASHINFER_WORKSPACE_BASE": f"{caches}/flashinfer",
        "HUMMING_CACHE_DIR": f"{caches}/humming",
        "CUDA_CACHE_PATH": f"{caches}/cuda",
        # VLLM's own default of 600 s is short for 121 GB from a slow disk.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(deployment.ready_timeout_s),
        **selection.engine.environment,
    }
    if selection.gpus_of_each(deployment.machine.count) > 1:
        variables |= selection.engine.tensor_parallel["environment"]
    return variables


def memory_budget(selection: Selection, chosen: EngineArguments) -> Budget | None:
    """The memory of one GPU with these arguments; None for an engine that runs on the CPU."""
    if selection.engine.runs_on == "cpu":
        return None
    settings = MemorySettings.of(chosen, selection.engine, selection.gpu, selection.model.maximum_context)
    return memory.budget(
        selection.model.dimensions, selection.precision, selection.engine, selection.gpu, settings
    )
