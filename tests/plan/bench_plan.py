"""Time `pulumi-vllm plan STACK` against the imports that any such program needs: `python tests/plan/bench_plan.py`.

It alternates between the two, so that a slow minute affects both, and prints the medians and their ratio.
"""

import argparse
import compileall
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTS = [sys.executable, "-c", "import pydantic, jinja2"]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stack", nargs="?", default="spheron-h200-2x-fp8")
    parser.add_argument("--runs", type=int, default=15)
    parsed = parser.parse_args()
    compileall.compile_dir(
        ROOT / "components", quiet=1
    )  # as pip does; some environments do not write bytecode
    plan = [sys.executable, "-m", "pulumi_vllm.cli", "plan", parsed.stack]
    for command in (IMPORTS, plan):
        seconds(command)  # bytecode and disk cache
    times = [(seconds(IMPORTS), seconds(plan)) for _ in range(parsed.runs)]
    imports, planned = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"import pydantic, jinja2: {imports:.3f} s; plan {parsed.stack}: {planned:.3f} s; {planned / imports:.2f} x"
    )


if __name__ == "__main__":
    main()
