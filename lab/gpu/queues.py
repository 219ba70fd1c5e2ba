"""Here: what one kind of machine still has to run so that its stacks are measured as they are shipped now.

usage: queues.py FOLDER GPU COUNT     (queues.py .g9 H100 2; there `queue.sh FOLDER/queue.txt`)

Each stack of that machine is started as it is, loaded, looked at and drained, started again as another host that has
the caches only, and where its context is shorter started with 256Ki. Prompts of nearly the context come last, and after
them the images that fill a step: the fragments are largest then. What has evidence of exactly its flags is left out; where
only the start with the caches is missing, a start that fills them and that one are queued.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import launch
from pulumi_vllm.plan import catalogue, plan
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.engine_setup import CACHE_BYTES
from pulumi_vllm.plan.evidence import best_match, recorded_flags

ROOT = Path(__file__).parents[2]
OWN, LONGER = (1, 32, 128, 256, 512), "32"
PROMPTS = (65_000, 130_500, 261_000)
FULL_STEP = "1540x812:5:16:4"
SIZES = f"1092x1092:3:1:1,1024x768:1:64:16,1540x1540:2:16:4,{FULL_STEP}"


def evidence(launched: dict[str, Any]) -> catalogue.Measured | None:
    """Of exactly these flags."""
    wanted = [launched[name] for name in ("model", "precision", "engine", "gpu", "count")]
    flags = {name: value for name, value in recorded_flags(launched["argv"]).items() if name != CACHE_BYTES}
    arguments = EngineArguments.of(flags)
    match = best_match(catalogue.load().measured, tuple(wanted), arguments)
    return match.run if match and match.exact else None


def missing(name: str, context: int, known: catalogue.Measured | None, own: int) -> list[str]:
    """Arguments of measure.py for what is not known of these flags. `own`: requests at once, 0 for another context."""
    levels, more = LONGER, f"--images {FULL_STEP}"
    if own:
        levels = ",".join(str(streams) for streams in OWN if streams <= own)
        more = f"--capture --drain 32 --images {SIZES}"
    loaded = known is not None and all(int(one) in known.tokens_per_s for one in levels.split(","))
    warm_start = not own or (known is not None and catalogue.WARM_REPLACEMENT in known.ready_s)
    runs = []
    if loaded:
        print(f"measured: {name}", file=sys.stderr)
    else:
        levels = ",".join([levels, *(f"1:1:{tokens}:16" for tokens in PROMPTS if tokens < context)])
        runs.append(f"{name} --levels {levels} {more} --deadline-s 420")
    if loaded and not warm_start:
        runs.append(f"{name}-caches --levels , --deadline-s 300")
    if not warm_start:
        runs.append(f"{name}-warm --levels , --move-in second-host --deadline-s 200")
    return runs


def main() -> None:
    """Write the launch files and the queue."""
    folder, gpu, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in sorted((ROOT / "stacks").glob("Pulumi.*.yaml")):
        block = launch.block(path, [])
        machine = block["machine"]
        if (machine.get("gpu"), machine.get("count")) != (gpu, count):
            continue
        deployment = plan(Deployment.parse(block)).deployment
        for context in sorted({deployment.context, 262_144}):
            launched = launch.launch(path.name[7:-5], {**block, "context": context})
            used = launched["argv"][launched["argv"].index("--gpu-memory-utilization") + 1]
            name = f"{count}x-{block['precision']}-{context >> 10}ki-{used}"
            own = deployment.sequences if context == deployment.context else 0
            runs = missing(name, context, evidence(launched), own)
            if runs:
                (folder / f"{name}.json").write_text(json.dumps(launched, indent=1))
            lines += [f"{name}.json {run}\n" for run in runs]
    if not lines:
        sys.exit(f"{count}x {gpu}: no stack has it, or none is to be measured")
    (folder / "queue.txt").write_text("".join(lines))
    print("".join(lines), end="")


if __name__ == "__main__":
    main()
