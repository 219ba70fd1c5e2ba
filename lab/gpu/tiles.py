"""Tiles for the engine's FP8 expert kernel: what vLLM takes by default, and what is worth trying."""

from __future__ import annotations

import itertools

EXPERTS = 128
DECODE_UP_TO = 256
Config = dict[str, int]


def default(m: int) -> Config:
    """What vLLM 0.26.0 takes for per-tensor FP8 when it finds no table."""
    block_m = 16 if m <= 32 else 32 if m <= 96 else 64 if m <= 512 else 128
    return {
        "BLOCK_SIZE_M": block_m,
        "BLOCK_SIZE_N": 64 if m <= 64 else 128,
        "BLOCK_SIZE_K": 128,
        "GROUP_SIZE_M": 16 if m // EXPERTS > 128 else 1,
        "num_warps": 4 if m <= 128 else 8,
        "num_stages": 4 if m <= 32 else 3,
    }


def candidates(m: int) -> list[Config]:
    """Tiles worth trying at `m` tokens; shared memory of Hopper (227 KiB) leaves out the rest."""
    if m <= DECODE_UP_TO:
        blocks_m = (16,) if m <= 48 else (16, 32) if m <= 128 else (16, 32, 64)
        space = itertools.product(blocks_m, (32, 64, 128), (128, 256), (1,), (4, 8), (3, 4, 5))
    else:
        blocks_m = (16, 32, 64) if m <= 1024 else (64, 128)
        space = itertools.product(blocks_m, (128, 256), (64, 128), (1, 16), (4, 8), (3, 4))
    names = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
    found = [dict(zip(names, values, strict=True)) for values in space]
    fitting = [
        one
        for one in found
        if (one["BLOCK_SIZE_M"] + one["BLOCK_SIZE_N"]) * one["BLOCK_SIZE_K"] * one["num_stages"] <= 227 << 10
        # 128 x 256 accumulators spill with four warps
        and one["BLOCK_SIZE_M"] * one["BLOCK_SIZE_N"] <= 64 * 128 * (one["num_warps"] // 4) * 2
    ]
    return [default(m), *(one for one in fitting if one != default(m))]
