"""What one GPU must hold, computed from the model's published dimensions and vLLM's arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.activation_memory import activation_bytes, image_bytes, images_per_step, sampler_bytes
from pulumi_vllm.plan.cuda_graphs import graph_memory
from pulumi_vllm.plan.memory_settings import GIB
from pulumi_vllm.plan.weight_memory import kv_bytes_per_request, kv_bytes_per_token, weight_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.plan.catalogue import Dimensions, Engine, Gpu, Precision
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.memory_settings import MemorySettings

UNMODELLED = (
    "pipeline-parallel-size",
    "data-parallel-size",
    "decode-context-parallel-size",
    "prefill-context-parallel-size",
    "enable-expert-parallel",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "cpu-offload-gb",
    "enable-lora",
    "speculative-config",
)
"""Arguments that change what a GPU holds, and that no formula in this module covers."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory of one GPU in GiB. vLLM uses up to `limit_gib`; `beyond_gib` must fit above that limit.

    `headroom_gib`: PyTorch's fragmentation, and communication buffers if there are several GPUs.
    `accepts_images`: whether requests may hold images.
    `kv_bytes_per_request`: what a request takes in the KV cache beside its tokens (windows, recurrent states).
    `unverified`: what the figures do not count, or count with a formula that nobody compared with a start.
    `uncounted`: those that are not counted at all, so that nobody knows whether it fits.
    `images_per_step`: images of the largest size in the step that sets the peak activation; 0 if text sets it.
    `burst_gib`: peak activation of a batch of small images beyond vLLM's profiled peak.
    """

    visible_gib: float
    limit_gib: float
    weights_gib: float
    activation_gib: float
    other_gib: float
    graphs_gib: float
    graphs_excess_gib: float
    kv_bytes_per_token: int
    context: int
    headroom_gib: float = 0.0
    images_per_step: int = 0
    burst_gib: float = 0.0
    accepts_images: bool = False
    kv_bytes_per_request: int = 0
    unverified: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def cache_gib(self) -> float:
        """Memory for the KV cache; negative if the weights alone do not fit."""
        return self.limit_gib - self.weights_gib - self.activation_gib - self.other_gib - self.graphs_gib

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, over all requests of the full context."""
        cache = self.cache_gib * GIB
        if not self.kv_bytes_per_request:
            return max(0, int(cache / self.kv_bytes_per_token))
        return max(0, int(cache / self._request_bytes * self.context))

    @property
    def full_requests(self) -> float:
        """Requests of the full context that fit at once."""
        return self.kv_tokens / self.context

    @property
    def longest_request(self) -> int:
        """Tokens of the longest request that fits alone."""
        return max(0, int((self.cache_gib * GIB - self.kv_bytes_per_request) / self.kv_bytes_per_token))

    @property
    def request_gib(self) -> float:
        """KV cache of one request of the full context."""
        return self._request_bytes / GIB

    @property
    def _request_bytes(self) -> int:
        return self.context * self.kv_bytes_per_token + self.kv_bytes_per_request

    @property
    def short_gib(self) -> float:
        """Memory missing for one request of the full context; 0 if it fits."""
        return max(0.0, self.request_gib - self.cache_gib)

    @property
    def above_limit_gib(self) -> float:
        """Memory above vLLM's limit."""
        return self.visible_gib - self.limit_gib

    @property
    def beyond_gib(self) -> float:
        """Memory that the process needs above vLLM's limit."""
        return self.graphs_excess_gib + self.headroom_gib + self.burst_gib

    @property
    def safe_utilization(self) -> float:
        """The largest utilization, in hundredths, that leaves enough memory above the limit; 0 if none does."""
        return max(0, floor((1 - self.beyond_gib / self.visible_gib) * 100)) / 100

    @property
    def fits(self) -> bool:
        """Whether one request of the full context fits, and what is needed above the limit as well."""
        return self.short_gib == 0 and self.beyond_gib <= self.above_limit_gib


def accepts_images(model: Dimensions, arguments: EngineArguments) -> bool:
    """Whether a model has a vision tower and its arguments let it be used."""
    return bool(model.vision) and arguments.image_limit > 0


def budget(
    model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, settings: MemorySettings
) -> Budget:
    """The memory budget of one of the machine's GPUs, which are all alike."""
    figures = engine.memory
    graphs = graph_memory(model, precision, engine, settings)
    vision = burst = 0.0
    images = settings.images > 0 and bool(model.vision)
    text = activation_bytes(model, settings, figures.get("expert_streams")) / GIB + figures["workspace_gib"]
    if "sampler" in figures:
        text = max(text, sampler_bytes(model, settings, figures["sampler"], images=images) / GIB)
    if images and model.image_formula and "image_stream" in figures:
        vision, burst = (one / GIB for one in image_bytes(model, settings, figures["image_stream"]))
    return Budget(
        visible_gib=gpu.visible_gib,
        limit_gib=gpu.visible_gib * settings.utilization,
        weights_gib=weight_bytes(
            model,
            precision,
            settings.tensor_parallel,
            vision=settings.images > 0,
            capability=gpu.compute_capability,
        )
        / GIB
        + figures["buffers_gib"],
        activation_gib=max(text, vision),
        other_gib=_other(figures["other_gib"], settings),
        graphs_gib=graphs.estimated_gib,
        graphs_excess_gib=max(0.0, graphs.actual_gib - graphs.estimated_gib),
        kv_bytes_per_token=kv_bytes_per_token(model, settings.tensor_parallel, settings.cache_bytes),
        context=settings.context,
        headroom_gib=_headroom(figures["headroom_gib"], settings, gpu, images=images),
        images_per_step=images_per_step(model, settings) if vision > text else 0,
        burst_gib=max(0.0, burst - max(text, vision)),
        accepts_images=images,
        kv_bytes_per_request=kv_bytes_per_request(model, settings),
        unverified=(*_unverified(model, gpu), *_uncounted(model, images=images)),
        uncounted=tuple(_uncounted(model, images=images)),
    )


def _uncounted(model: Dimensions, *, images: bool) -> Iterator[str]:
    """What no formula counts."""
    if images and not model.image_formula:
        yield "what a step of images takes in this vision tower is unknown and not counted"


def _unverified(model: Dimensions, gpu: Gpu) -> Iterator[str]:
    """What a formula counts that was never compared with a start."""
    if not gpu.measured:
        constants = "CUDA graphs and the headroom above vLLM's limit"
        yield f"{constants} were measured on H100 and H200 (SXM), never on {gpu.name}"
    if "linear" in model.attention:
        yield "the activation of linear attention is counted as that of a block of the same width"


def _other(known: float | Mapping[str, float], settings: MemorySettings) -> float:
    """GiB beside weights, activation and graphs: a constant (0.26.0), or one that grows with batch and sequences."""
    if not isinstance(known, dict):
        return float(known)  # type: ignore[arg-type]
    batch, sequences = settings.batched_tokens / 1024, settings.sequences / 256
    return float(known["fixed"] + known["per_1024_tokens"] * batch + known["per_256_sequences"] * sequences)


_LEFT_BY_VLLM = 0.08
"""Part of a GPU that vLLM leaves by default: its own gpu-memory-utilization is 0.92 (0.26.0 and 0.33.0)."""


def _headroom(known: Mapping[str, Any], settings: MemorySettings, gpu: Gpu, *, images: bool) -> float:
    """GiB needed above the limit beside graphs and masks; with images by the batch, up to the largest known one.

    The constants are of large GPUs. A smaller one, on which nothing was measured, gets no more than vLLM itself leaves,
    unless it is to read images.
    """
    most = float("inf") if gpu.measured or images else _LEFT_BY_VLLM * gpu.visible_gib
    if settings.tensor_parallel > 1:
        return min(float(known["several"]), most)
    if not images:
        return min(float(known["one"]), most)
    batches: Mapping[int, float] = known["one_with_images"]
    return float(
        batches[min((one for one in batches if settings.batched_tokens <= one), default=max(batches))]
    )


def safe_budget(
    model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, settings: MemorySettings
) -> Budget:
    """The budget at the given utilization, or at a lower one if that leaves too little above the limit."""
    found = budget(model, precision, engine, gpu, settings)
    if found.safe_utilization >= settings.utilization:
        return found
    return budget(model, precision, engine, gpu, replace(settings, utilization=found.safe_utilization))
