"""Time previews of an empty program and of ours, with and without reading the host, and `up` to an answered chat.

Run as root once `./dev up` has installed everything: `python tests/e2e/bench_previews.py [--engine real] [--runs 5]`.
Prints medians and ratios of one run: the machines differ, the ratios hardly.
"""

import argparse
import compileall
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from harness import REPOSITORY, LocalCloud, Project, block, client


def timed(run) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


def empty(folder: Path, like: Project) -> Project:
    """A project with no resources, on the same engine and backend."""
    project = Project(folder, like.cloud, like.block, "empty")
    program = folder / "program"
    program.mkdir()
    (program / "__main__.py").write_text("import pulumi\n")
    document = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump({**document, "main": str(program), "options": {}}))
    return project


def chat(project: Project, folder: Path) -> None:
    outputs = project.outputs()
    answer = client(outputs, folder).chat.completions.create(
        model=outputs["model"], messages=[{"role": "user", "content": "How are you?"}], max_tokens=30
    )
    assert answer.choices[0].message.content


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("fake", "real"), default="fake")
    parser.add_argument("--runs", type=int, default=5)
    parsed = parser.parse_args()
    compileall.compile_dir(
        REPOSITORY / "components", quiet=1
    )  # as pip does; some environments do not write it
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    cloud = LocalCloud(REPOSITORY / ".pulumi-vllm" / "bench", parsed.engine)
    try:
        cloud.up()
        ours = Project(folder / "ours", cloud, block(), "bench")
        start = time.monotonic()
        ours.up()
        up_s = time.monotonic() - start
        chat(ours, folder)
        print(
            f"pulumi up, {parsed.engine} engine: {up_s:.1f} s; to an answered chat {time.monotonic() - start:.1f} s"
        )
        nothing = empty(folder / "empty", ours)
        rows: dict[str, list[float]] = {"empty": [], "ours, no refresh": [], "ours, refresh": []}
        for _ in range(parsed.runs):  # alternating, so that a slow minute of the computer affects all three
            rows["empty"].append(timed(lambda: nothing.pulumi("preview")))
            rows["ours, no refresh"].append(timed(lambda: ours.pulumi("preview", "--refresh=false")))
            rows["ours, refresh"].append(timed(lambda: ours.pulumi("preview", "--refresh")))
        base = statistics.median(rows["empty"])
        for name, times in rows.items():
            median = statistics.median(times)
            print(
                f"{name:18} {median:6.2f} s   {median / base:.2f} x   (min {min(times):.2f}, max {max(times):.2f})"
            )
        extra = statistics.median(rows["ours, refresh"]) - statistics.median(rows["ours, no refresh"])
        print(f"the look at the host costs {extra:.2f} s")
        cloud.pass_minutes(30)
        ours.destroy()
    finally:
        cloud.down()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
