"""Here: everything that one kind of machine has to run so that its stacks are measured as they are shipped now.

usage: queues.py FOLDER GPU COUNT     (queues.py .g9 H100 2; there `queue.sh FOLDER/queue.txt`)

Each stack of that machine is started as it is, loaded, looked at and drained, and where its context is shorter with
256Ki; prompts of nearly the context and requests with images come last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import launch
from pulumi_vllm.plan import plan
from pulumi_vllm.plan.config import Deployment

ROOT = Path(__file__).parents[2]
OWN, LONGER = "1,32,128,256", "32"
PROMPTS = (65_000, 130_500, 261_000)
IMAGES = "--pictures 1092x1092:3:1:1,1024x768:1:64:16,1540x1540:2:16:4,1540x812:5:16:4"


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
        own = plan(Deployment.parse(block)).deployment.context
        for context in sorted({own, 262_144}):
            levels = [OWN if context == own else LONGER]
            levels += [f"1:1:{tokens}:16" for tokens in PROMPTS if tokens < context]
            more = "--capture --drain 32" if context == own else ""
            name = f"{count}x-{block['precision']}-{context >> 10}ki"
            launched = launch.launch(path.name[7:-5], {**block, "context": context})
            (folder / f"{name}.json").write_text(json.dumps(launched, indent=1))
            lines.append(f"{name}.json {name} --levels {','.join(levels)} {more} {IMAGES} --deadline-s 420\n")
    if not lines:
        sys.exit(f"no stack has {count}x {gpu}")
    (folder / "queue.txt").write_text("".join(lines))
    print("".join(lines), end="")


if __name__ == "__main__":
    main()
