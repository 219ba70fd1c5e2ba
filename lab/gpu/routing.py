"""On the GPU machine: the experts that vLLM's two kernels choose for the same router's logits, against the exact choice.

Without `hf-overrides` a model of one expert group is routed by PyTorch steps in the logits' own 16 bits, with it by one
kernel in 32 bits. Prints one line of JSON: the share of tokens whose experts are the exact ones (equal logits may
change places), and the largest error of a weight.

usage: PYTHONPATH=/tmp/site python3 routing.py
"""

from __future__ import annotations

import json

import torch
from vllm.model_executor.layers.fused_moe.router.fused_topk_router import fused_topk
from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import grouped_topk

TOKENS, EXPERTS, ACTIVE = 1 << 16, 128, 4


def main() -> None:
    """Compare at three widths of the logits."""
    torch.manual_seed(0)
    rows = []
    for width in (0.5, 1.0, 4.0):
        logits = (torch.randn(TOKENS, EXPERTS, device="cuda") * width).to(torch.bfloat16)
        exact = logits.double().softmax(-1)
        best = exact.topk(ACTIVE, dim=-1).values
        row: dict[str, float] = {"width": width}
        chosen = {
            "grouped": grouped_topk(logits, logits, ACTIVE, True, 1, 1),
            "fused": fused_topk(logits, logits, ACTIVE, True)[:2],
        }
        for name, (weights, ids) in chosen.items():
            taken = exact.gather(1, ids.long())
            right = (taken.sort(-1, descending=True).values == best).all(-1)
            wanted = taken / taken.sum(-1, keepdim=True)
            row[f"{name}_exact_share"] = right.float().mean().item()
            row[f"{name}_weight_error"] = (weights.double() - wanted).abs().max().item()
        rows.append({key: round(value, 6) for key, value in row.items()})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
