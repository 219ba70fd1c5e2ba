"""CUDA graphs: how many vLLM captures, what it estimates for them, and what they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.engine_arguments import CAPTURE_SIZES
from pulumi_vllm.plan.memory_settings import GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.catalogue import Dimensions, Engine, Precision
    from pulumi_vllm.plan.engine_arguments import Flags
    from pulumi_vllm.plan.memory_settings import MemorySettings

_CAPTURE_STEP = 16
"""Step between vLLM's capture sizes above 256 (0.26.0 and 0.33.0)."""
_GRAPHS_OF_256, _GRAPHS_OF_512 = 86, 102
"""Graphs captured with max-num-seqs 256 and 512."""
FEW_GRAPHS = range(256, 513)
"""Sequences at which half of vLLM's graphs were measured to serve as fast as all of them."""


@dataclass(frozen=True, slots=True)
class GraphMemory:
    """CUDA graphs in GiB: what vLLM subtracts from the KV cache for them, and what they take in use."""

    estimated_gib: float = 0.0
    actual_gib: float = 0.0


def graph_memory(
    model: Dimensions, precision: Precision, engine: Engine, settings: MemorySettings
) -> GraphMemory:
    """CUDA graphs as vLLM estimates them, and what they take in use.

    0.26.0: a constant per graph and layer, up to `max-num-seqs` 256. The estimates of 512 sequences were no larger. The
    graphs of more than 512 sequences have constants of their own. 0.33.0: its estimate does not follow the flags and
    is switched off, so the graphs lie above vLLM's limit; what they take grows with the sequences.
    """
    if not settings.graphs:
        return GraphMemory()
    figures = engine.memory
    if "graphs_actual_gib" in figures:
        used = figures["graphs_actual_gib"]
        sequences = settings.largest_graph_used / 256
        return GraphMemory(actual_gib=used["fixed"] + used["per_256_sequences"] * sequences)
    table, many = figures["graph_mib_per_layer"], figures["graph_mib_per_layer_above_512"]
    one = table.get(precision.name, table["fp8"])
    each = one["fixed"] + one["sharded"] / settings.tensor_parallel
    mib = model.layers * 2**20
    graphs = captured_graphs(settings.sequences, settings.largest_graph)
    few = mib * each * min(graphs, _GRAPHS_OF_256)
    above = mib * max(0, graphs - _GRAPHS_OF_512)
    estimated = above * many["estimated"].get(precision.name, many["estimated"]["fp8"])
    found, actual = few + estimated, few * figures["graphs_actual_over_estimated"] + above * many["actual"]
    return GraphMemory(found / GIB, actual / GIB)


def captured_graphs(sequences: int, largest: int) -> int:
    """Graphs that vLLM captures: piecewise ones up to the largest size, decode ones up to max-num-seqs as well."""
    sizes = usual_sizes(largest)
    return len(sizes) + sum(1 for size in sizes if size <= sequences)


def usual_sizes(largest: int) -> list[int]:
    """The sizes that vLLM captures by itself, 51 up to 512 (VllmConfig of 0.26.0 and 0.33.0)."""
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if size <= largest]


def are_usual(sizes: Sequence[int]) -> bool:
    """Whether vLLM would capture all of these sizes by itself, up to the largest."""
    return set(sizes) <= set(usual_sizes(max(sizes, default=0)))


def few_sizes(largest: int) -> str:
    """Half as many of those sizes, 24 up to 512, as vLLM's argument: "1 2 4 8 16"."""
    steps = (*range(8, 64, 8), *range(64, 128, 16), *range(128, 320, 32), *range(320, largest, 64))
    return " ".join(str(size) for size in (*(one for one in (1, 2, 4, *steps) if one < largest), largest))


def are_few_sizes(value: object) -> bool:
    """Whether an argument's value is a list of `few_sizes` that the planner writes."""
    largest = str(value).rpartition(" ")[2]
    return largest.isdecimal() and int(largest) in FEW_GRAPHS and value == few_sizes(int(largest))


def without_few_sizes(flags: Flags) -> Flags:
    """Flags as they are compared with those of a run: the planner's list was measured to serve as fast as all sizes."""
    return {name: value for name, value in flags.items() if name != CAPTURE_SIZES or not are_few_sizes(value)}


def capture_size_for(sequences: int) -> int:
    """The smallest size in vLLM's list of graphs that holds so many sequences, for more than 256."""
    return -(-sequences // _CAPTURE_STEP) * _CAPTURE_STEP
