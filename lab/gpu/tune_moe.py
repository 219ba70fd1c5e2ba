"""On the GPU machine: the fastest tiles of the engine's FP8 expert kernel for one shape, as the table that vLLM reads.

usage: tune_moe.py FUSED_MOE.py OUT_FOLDER [--budget-s 200] [--inner 2048] [--tokens 1024,512] [--table FILE]
--table: a table of the engine, whose tiles are timed too
Takes only the two Triton functions out of the engine's source, so that it runs while the engine is still on its way.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from tiles import EXPERTS, Config, candidates, default

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN, TOP_K = 4096, 4
ORDER = (32, 128, 64, 256, 8192, 16, 96, 1, 2048, 48, 8, 192, 4096, 512, 24, 4, 1024)
"""Tokens in a step; what a busy server does most comes first, so that a short budget loses the least."""


def kernel_of(source: Path) -> Any:
    """The kernel of the installed engine, without importing the engine."""
    text = source.read_text()
    wanted = {"write_zeros_to_output", "fused_moe_kernel"}
    parts = [node for node in ast.parse(text).body if getattr(node, "name", "") in wanted]
    lines = text.splitlines()
    code = "import triton\nimport triton.language as tl\n\n"
    for node in parts:
        code += "\n".join(["@triton.jit", *lines[node.lineno - 1 : node.end_lineno]]) + "\n\n\n"
    folder = Path(tempfile.gettempdir()) / "tune_moe"
    folder.mkdir(exist_ok=True)
    (folder / "expert_kernel.py").write_text(code)
    sys.path.insert(0, str(folder))
    import expert_kernel

    return expert_kernel.fused_moe_kernel


def assignment(topk: torch.Tensor, block: int) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Tokens sorted by expert and padded to whole blocks, as vLLM's moe_align_block_size leaves them."""
    flat = topk.flatten()
    total = flat.numel()
    if total * 4 <= EXPERTS:
        padded = torch.tensor([total * block], dtype=torch.int32, device=flat.device)
        return None, flat.to(torch.int32), padded
    size = total + EXPERTS * (block - 1)
    if total < EXPERTS:
        size = min(total * block, size)
    counts = torch.bincount(flat, minlength=EXPERTS)
    blocks = (counts + block - 1) // block
    ends = torch.cumsum(blocks, 0)
    order = torch.argsort(flat, stable=True)
    ranks = torch.arange(total, device=flat.device) - (torch.cumsum(counts, 0) - counts)[flat[order]]
    ids = torch.full((size,), total, dtype=torch.int32, device=flat.device)
    ids[(ends - blocks)[flat[order]] * block + ranks] = order.to(torch.int32)
    of_block = torch.searchsorted(ends, torch.arange(-(-size // block), device=flat.device), right=True)
    padded = (ends[-1:] * block).to(torch.int32)
    return ids, of_block.clamp(max=EXPERTS - 1).to(torch.int32), padded


class Layer:
    """The two expert products of one layer, with weights of the real shape."""

    def __init__(self, kernel: Any, inner: int) -> None:
        self.kernel = kernel
        self.w1 = _random(EXPERTS, 2 * inner, HIDDEN)
        self.w2 = _random(EXPERTS, HIDDEN, inner)
        self.scale = torch.full((EXPERTS,), 0.02, device="cuda")
        self.one = torch.ones(1, device="cuda")

    def product(self, given: dict[str, Any], second: bool, config: Config) -> None:
        """One product, launched as vLLM launches it."""
        a, b, c = given["hidden"], self.w1, given["out1"]
        top_k = TOP_K
        if second:
            a, b, c, top_k = given["inner"], self.w2, given["out2"], 1
        ids, experts, padded = given["assigned"]
        block = config["BLOCK_SIZE_M"]
        tokens = a.size(0) * top_k
        longest = tokens * block if ids is None else ids.size(0)
        if ids is not None and a.size(0) < block:
            longest = min(longest, a.size(0) * top_k * block)
        grid = (triton.cdiv(longest, block) * triton.cdiv(b.size(1), config["BLOCK_SIZE_N"]),)
        self.kernel[grid](
            a, b, c, None, self.one, self.scale, given["weights"], ids, experts, padded,
            b.size(1), b.size(2), longest, tokens, a.stride(0), a.stride(1), b.stride(0), b.stride(2),
            b.stride(1), c.stride(1), c.stride(2), 0, 0, 0, 0, 0, 0, 0,
            **constants(config, second=second, naive=ids is None),
        )  # fmt: skip


def constants(config: Config, *, second: bool, naive: bool) -> dict[str, Any]:
    """The compile-time arguments."""
    return {
        "MUL_ROUTED_WEIGHT": second,
        "top_k": 1 if second else TOP_K,
        "compute_type": tl.bfloat16,
        "use_fp8_w8a8": True,
        "use_int8_w8a8": False,
        "use_int8_w8a16": False,
        "per_channel_quant": False,
        "naive_block_assignment": naive,
        "HAS_BIAS": False,
        "SPLIT_K": 1,
        "SWAP_AB": config["BLOCK_SIZE_M"] < 64 <= config["BLOCK_SIZE_N"],
        "group_n": 0,
        "group_k": 0,
        **config,
    }


def _random(*shape: int) -> torch.Tensor:
    out = torch.empty(shape, dtype=torch.float8_e4m3fn, device="cuda")
    tile = torch.randn(1 << 22, device="cuda").to(torch.float8_e4m3fn)
    out.view(-1, tile.numel()).copy_(tile)
    return out


def inputs(m: int, inner: int, count: int) -> list[dict[str, Any]]:
    """`count` different batches of `m` tokens: other experts each time, so that nothing is read from L2 twice."""
    out = []
    for _ in range(count):
        topk = torch.rand(m, EXPERTS, device="cuda").topk(TOP_K).indices
        out.append({
            "topk": topk,
            "hidden": torch.randn(m, HIDDEN, device="cuda").to(torch.float8_e4m3fn),
            "inner": torch.randn(m * TOP_K, inner, device="cuda").to(torch.float8_e4m3fn),
            "out1": torch.empty(m, TOP_K, 2 * inner, device="cuda", dtype=torch.bfloat16),
            "out2": torch.empty(m, TOP_K, HIDDEN, device="cuda", dtype=torch.bfloat16),
            "weights": torch.rand(m, TOP_K, device="cuda"),
        })  # fmt: skip
    return out


def microseconds(layer: Layer, batches: list[dict[str, Any]], config: Config, rounds: int) -> float:
    """Median time of both products of a layer, replayed from a CUDA graph."""
    for batch in batches:
        batch["assigned"] = assignment(batch["topk"], config["BLOCK_SIZE_M"])

    def both() -> None:
        for batch in batches:
            layer.product(batch, False, config)
            layer.product(batch, True, config)

    both()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both()
    graph.replay()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / len(batches))
    return statistics.median(times)


def _prepare(source: str) -> None:
    global _kernel  # noqa: PLW0603  # one per worker process
    _kernel = kernel_of(Path(source))
    torch.cuda.init()


def _compile(job: tuple[Config, bool, bool, int]) -> None:
    """Leave one variant in Triton's cache. Integers only matter by their divisibility by 16."""
    config, second, naive, tokens = job
    fp8, bf16, f32, i32 = torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.int32
    ids = None if naive else i32
    args = (fp8, fp8, bf16, None, f32, f32, f32, ids, i32, i32,
            4096, 4096, 4096, tokens, 4096, 1, 1 << 24, 1, 4096, 4096, 1, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip
    try:
        _kernel.warmup(*args, grid=(1,), **constants(config, second=second, naive=naive))
    except Exception as error:  # noqa: BLE001  # what does not compile is left to the timing, which reports it
        print("compile:", config, type(error).__name__, flush=True)


def precompile(source: Path, seconds: float, order: Sequence[int], table: dict[str, Config]) -> None:
    """All variants on all cores, in the order in which they are timed, until the time is over."""
    jobs: dict[str, tuple[Config, bool, bool, int]] = {}
    for m in order:
        for config in [*candidates(m), *listed(table, m)]:
            for second in (False, True):
                job = (config, second, m * TOP_K * 4 <= EXPERTS, 4 if m == 1 else 64)
                jobs.setdefault(repr(job), job)
    context = multiprocessing.get_context("spawn")
    with context.Pool((os.cpu_count() or 2) - 1, _prepare, (str(source),)) as pool:
        began = time.time()
        done = pool.imap_unordered(_compile, jobs.values())
        for _ in done:
            if time.time() - began > seconds:
                break
        print(f"up to {len(jobs)} variants compiled in {time.time() - began:.0f} s", flush=True)
        pool.terminate()


def listed(table: dict[str, Config], m: int) -> list[Config]:
    """The tiles that a table gives for `m` tokens: those of the nearest number it has."""
    numbers = [int(number) for number in table if number.isdigit()]
    return [table[str(min(numbers, key=lambda number: abs(number - m)))]] if numbers else []


def tune(layer: Layer, m: int, inner: int, table: dict[str, Config]) -> dict[str, Any]:
    """All candidates once, the best four and the default again, longer."""
    batches = inputs(m, inner, 8 if m <= 64 else 3)
    own = [round(microseconds(layer, batches, config, 15), 1) for config in listed(table, m)]
    rough: list[tuple[float, Config]] = []
    for config in candidates(m):
        try:
            rough.append((microseconds(layer, batches, config, 3), config))
        except Exception as error:  # noqa: BLE001  # a tile that does not fit is no candidate
            print(m, config, type(error).__name__, str(error)[:100], flush=True)
    rough.sort(key=lambda one: one[0])
    finalists = [config for _, config in rough[:4]]
    again = [(microseconds(layer, batches, config, 15), config) for config in (default(m), *finalists)]
    best_us, best = min(again, key=lambda one: one[0])
    reference, differs = None, 0.0
    for config in (default(m), best):
        batches[0]["assigned"] = assignment(batches[0]["topk"], config["BLOCK_SIZE_M"])
        layer.product(batches[0], False, config)
        layer.product(batches[0], True, config)
        found = torch.cat([batches[0]["out1"].float().flatten(), batches[0]["out2"].float().flatten()])
        if reference is not None:
            differs = ((found - reference).abs().max() / reference.abs().max()).item()
        reference = found
    moved = layer.w1[0].numel() + layer.w2[0].numel()
    hit = statistics.mean(batch["topk"].unique().numel() for batch in batches) * moved
    return {
        "m": m, "table_us": own, "default_us": round(again[0][0], 1), "best_us": round(best_us, 1), "best": best,
        "gain": round(again[0][0] / best_us, 3), "weights_tb_s": round(hit / best_us / 1e6, 2),
        "largest_relative_difference": differs, "tried": len(rough),
        "rough": [(round(us, 1), list(config.values())) for us, config in rough[:8]],
    }  # fmt: skip


def main() -> None:
    """Write the table and what it was chosen from."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budget-s", type=float, default=200)
    parser.add_argument("--inner", type=int, default=2048)
    parser.add_argument("--tokens", default=",".join(map(str, ORDER)))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    order = [int(number) for number in options.tokens.split(",")]
    known: dict[str, Config] = json.loads(options.table.read_text()) if options.table else {}
    began = time.time()
    options.out.mkdir(parents=True, exist_ok=True)
    precompile(options.source, options.budget_s * 0.6, order, known)
    torch.manual_seed(0)
    layer = Layer(kernel_of(options.source), options.inner)
    rows: list[dict[str, Any]] = []
    for m in order:
        if time.time() - began > options.budget_s:
            print("out of time before", m, flush=True)
            break
        rows.append(tune(layer, m, options.inner, known))
        print(round(time.time() - began), json.dumps(rows[-1]), flush=True)
    card = torch.cuda.get_device_name().replace(" ", "_")
    card = "NVIDIA_H200" if "H200" in card.split("_") else card
    # A gain within the noise of two runs keeps the default.
    table = {
        str(row["m"]): row["best"] if row["gain"] > 1.02 else default(row["m"])
        for row in sorted(rows, key=lambda one: one["m"])
    }
    name = f"E={EXPERTS},N={options.inner},device_name={card},dtype=fp8_w8a8.json"
    (options.out / name).write_text(json.dumps({"triton_version": triton.__version__, **table}, indent=1))
    (options.out / "tuning.json").write_text(
        json.dumps({"card": card, "seconds": time.time() - began, "rows": rows})
    )


if __name__ == "__main__":
    main()
