"""Here: the constants of an engine's memory from what vLLM reported, and the prediction of each row without it.

usage: fit_memory.py    (prints the constants, and every row: measured, predicted, predicted with the row left out)

Starts of 2026-11-23 with vLLM 0.26.0 (utilization 0.95, text only, random weights); GiB of one GPU, from vLLM's log.
Only what no published dimension gives is fitted: buffers, workspace, other, and MiB per captured graph and layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from pulumi_vllm.plan import activation_memory, catalogue, cuda_graphs, memory
from pulumi_vllm.plan.engine_arguments import UNLIMITED_IMAGES
from pulumi_vllm.plan.memory_settings import GIB, MemorySettings

KNOWN = catalogue.load()
MODEL = KNOWN.models["mistral-small-4"]
ENGINE = KNOWN.engines["0.26.0"]
EVIDENCE = Path(__file__).parents[1] / "evidence"


@dataclass(frozen=True, slots=True)
class Row:
    """One start; `graphs_gib` is vLLM's estimate, `actual_gib` what they took, `run` its name in the evidence."""

    gpu: str
    precision: str
    load: MemorySettings
    weights_gib: float
    activation_gib: float
    other_gib: float
    graphs_gib: float
    actual_gib: float
    kv_tokens: int
    run: str = "2026-11-23"

    @property
    def name(self) -> str:
        """For a person."""
        load = self.load
        machine = f"{load.tensor_parallel}x {self.gpu} {self.precision}"
        asked = f"{load.context:,} x {load.sequences}, batch {load.batched_tokens:,}, {load.utilization}"
        return f"{machine}, {asked} ({self.run})"

    def predict(self, figures: Mapping[str, Any]) -> memory.Budget:
        """The budget with these constants."""
        engine = replace(ENGINE, memory={**ENGINE.memory, **figures})
        return memory.budget(
            MODEL.dimensions, MODEL.precisions[self.precision], engine, KNOWN.gpus[self.gpu], self.load
        )


def _load(parallel: int, context: int, sequences: int) -> MemorySettings:
    return MemorySettings(parallel, context, sequences, 0.95, 8192, images=0)


ROWS = (
    Row("H100", "nvfp4", _load(1, 32768, 256), 65.31, 1.47, 0.25, 0.95, 1.22, 337_184),
    Row("H100", "nvfp4", _load(1, 262144, 64), 65.31, 1.47, 0.25, 0.31, 0.37, 366_848),
    Row("H200", "fp8", _load(1, 32768, 256), 112.09, 1.47, 0.24, 1.29, 1.94, 825_632),
    Row("H200", "fp8", _load(1, 262144, 256), 112.08, 1.47, 0.24, 1.29, 1.94, 825_664),
    Row("H200", "nvfp4", _load(1, 32768, 256), 65.31, 1.47, 0.25, 0.95, 1.22, 3_021_104),
    Row("H100", "fp8", _load(2, 32768, 256), 56.25, 1.10, 0.15, 0.85, 1.33, 786_480),
    Row("H200", "fp8", _load(2, 32768, 256), 56.25, 1.10, 0.15, 0.85, 1.33, 3_470_416),
)


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """The constants that these rows give. Other and the graphs' growth take the worst: a wrong "fits" costs more."""
    bare = {"buffers_gib": 0.0, "workspace_gib": 0.0}
    return {
        "buffers_gib": mean(row.weights_gib - row.predict(bare).weights_gib for row in rows),
        "workspace_gib": mean(row.activation_gib - row.predict(bare).activation_gib for row in rows),
        "other_gib": max(row.other_gib for row in rows),
        "graph_mib_per_layer": {
            "fp8": _graphs(row for row in rows if row.precision == "fp8"),
            "nvfp4": _graphs(row for row in rows if row.precision == "nvfp4"),
        },
        "graphs_actual_over_estimated": max(row.actual_gib / row.graphs_gib for row in rows),
    }


SAMPLER_SEQUENCES = 512
"""Above so many sequences vLLM's profiled peak is that of the sampler, and says nothing about images."""


def image_streams() -> Iterator[tuple[Row, float]]:
    """Yield every start whose activation is that of two images or more, and the tower widths per patch that give it."""
    for row in held_out():
        if row.load.sequences > SAMPLER_SEQUENCES:
            continue
        if row.load.images and activation_memory.images_per_step(MODEL.dimensions, row.load) > 1:
            none, one = (
                activation_memory.image_bytes(MODEL.dimensions, row.load, widths)[0] for widths in (0, 1)
            )
            yield row, (row.activation_gib * GIB - none) / (one - none)


def _graphs(rows: Iterable[Row]) -> dict[str, float]:
    """MiB per captured graph and layer = fixed + sharded / tensor parallel; one size alone gives no sharded part."""
    each: dict[int, list[float]] = {}
    for row in rows:
        graphs = (
            cuda_graphs.captured_graphs(row.load.sequences, row.load.largest_graph) * MODEL.dimensions.layers
        )
        each.setdefault(row.load.tensor_parallel, []).append(row.graphs_gib * 1024 / graphs)
    one = mean(each[1])
    sharded = 2 * (one - mean(each[2])) if 2 in each else 0.0
    return {"fixed": one - sharded, "sharded": sharded}


def runs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Evidence and run of every start of this engine."""
    for path in sorted(EVIDENCE.glob(f"{ENGINE.version}/*.json")):
        evidence = json.loads(path.read_text())
        for run in (evidence, *evidence["other_runs"]):
            yield evidence, run


def held_out() -> Iterator[Row]:
    """Rows that nothing was fitted to: every start of every evidence file of this engine."""
    for evidence, run in runs():
        if run["reported"].keys() >= {"kv_tokens", "limit_gib", "max_num_batched_tokens"}:
            yield _row(evidence, run)


def ended() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Evidence and run of every start that the memory was too small for."""
    return (one for one in runs() if one[1]["outcome"] == "ended" and one[1].get("died_of"))


def _row(evidence: Mapping[str, Any], run: Mapping[str, Any]) -> Row:
    """Return the row of one run: its flags, its changes of them, and the limit and batch that vLLM reported."""
    flags = run.get("flags", evidence["flags"])
    words = dict(pairwise(flags)) | {f"--{name}": value for name, value in run["changed_flags"].items()}
    figures = run["reported"]
    load = MemorySettings(
        evidence["count"],
        int(words["--max-model-len"]),
        int(words["--max-num-seqs"]),
        round(figures["limit_gib"] / figures["visible_gib"], 3),
        int(figures["max_num_batched_tokens"]),
        images=UNLIMITED_IMAGES if run.get("vision_tower") else 0,  # runs before 2026-11-26 had no tower
        capture_size=int(words["--max-cudagraph-capture-size"])
        if "--max-cudagraph-capture-size" in words
        else None,
    )
    reported = [
        figures.get(name, 0.0)
        for name in (
            "weights_gib",
            "peak_activation_gib",
            "non_torch_gib",
            "graphs_estimated_gib",
            "graphs_actual_gib",
        )
    ]
    return Row(evidence["gpu"], evidence["precision"], load, *reported, int(figures["kv_tokens"]), run["run"])


def predictions() -> Iterator[tuple[Row, memory.Budget, memory.Budget]]:
    """Every start, its budget by the constants in use, and by constants fitted without it."""
    for row in (*ROWS, *held_out()):
        yield row, row.predict({}), row.predict(fit([other for other in ROWS if other is not row]))


def main() -> None:
    """Print."""
    print(json.dumps(fit(ROWS), indent=1))
    for row, widths in image_streams():
        print(f"image_stream {widths:.2f}: {row.name}")
    print("\n| start | measured KV tokens | predicted | error | row left out: predicted | error |")
    print("|---|---|---|---|---|---|")
    for row, *found in predictions():
        cells = [f"{one.kv_tokens:,} | {one.kv_tokens / row.kv_tokens - 1:+.2%}" for one in found]
        print(f"| {row.name} | {row.kv_tokens:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
