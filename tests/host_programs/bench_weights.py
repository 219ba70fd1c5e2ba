"""Compare the weights program with what curl gets from the same hub, thrown away and on the same disk, and with `hf`.

Every download of a round begins with an empty folder; the order changes from round to round.

python tests/host_programs/bench_weights.py [--mib 1024] [--files 4] [--rounds 3] [--folder /var/tmp]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/weights"
NAME, REVISION, PIECE = "acme/large", "0" * 40, 1 << 20
SETTLE_S = 0.5  # for what the file system still does with the folder that was deleted last


def serve(folder: Path, port: int) -> None:
    """The hub, as a process of its own."""
    import uvicorn
    from pulumi_vllm_local.hub.content import Repository
    from pulumi_vllm_local.hub.model_hub import application

    app = application([Repository.read(NAME, folder, REVISION)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def curl(port: int, paths: list[str], target: Path | None = None) -> None:
    """What the loop-back gives with this hub at the other end, four files at a time: thrown away, or written."""
    command = ["curl", "-sS", "--no-progress-meter", "--parallel", "--parallel-max", "4"]
    for path in paths:
        sink = str(target / path) if target else os.devnull
        command += ["-o", sink, f"http://127.0.0.1:{port}/{NAME}/resolve/{REVISION}/{path}"]
    subprocess.run(command, check=True)


def by_hand(port: int, paths: list[str], target: Path) -> None:
    """What our program promises, with the tools of a shell: written, on the disk, every hash read."""
    curl(port, paths, target)
    subprocess.run(["sync", "-f", str(target)], check=True)
    hashing = [subprocess.Popen(["sha256sum", target / path], stdout=subprocess.DEVNULL) for path in paths]
    codes = [one.wait() for one in hashing]
    if any(codes):
        raise SystemExit("sha256sum failed")


def ours(port: int, target: Path) -> None:
    """The program as the unit runs it, 16 connections."""
    config = {
        "repository": NAME,
        "revision": REVISION,
        "endpoint": f"http://127.0.0.1:{port}",
        "directory": str(target / REVISION),
        "progress": str(target / "progress.json"),
    }
    (target / "weights.json").write_text(json.dumps(config))
    command = [sys.executable, "-BsE", str(PROGRAM), str(target / "weights.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def theirs(port: int, target: Path) -> None:
    """`hf download`, then a hash of every file, which it leaves out."""
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(target), "HF_HUB_DISABLE_XET": "1"}
    download = ["hf", "download", NAME, "--revision", REVISION, "--local-dir", str(target / "model")]
    subprocess.run(download, check=True, env=os.environ | own, capture_output=True)
    verify = ["hf", "cache", "verify", NAME, "--revision", REVISION, "--local-dir", str(target / "model")]
    subprocess.run(verify, check=True, env=os.environ | own, capture_output=True)


def timed(work: Callable[[int, Path], None], port: int, folder: Path, size: int) -> tuple[float, float]:
    """MB/s of one download into an empty folder, and its processor seconds per GB without the hub's."""
    target = Path(tempfile.mkdtemp(dir=folder))
    os.sync()
    time.sleep(SETTLE_S)
    begun, before = time.monotonic(), processor_s()
    work(port, target)
    took, used = time.monotonic() - begun, processor_s() - before
    shutil.rmtree(target)
    return size / 1e6 / took, used / (size / 1e9)


def processor_s() -> float:
    """Of all programs that have run and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(Path(args.serve[0]), int(args.serve[1]))
        return
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    (folder / "model").mkdir()
    paths = [f"consolidated-{number}.safetensors" for number in range(args.files)]
    for path in paths:
        with (folder / "model" / path).open("wb") as out:
            for _ in range(args.mib // args.files):
                out.write(os.urandom(PIECE))
    size = args.mib // args.files * args.files * PIECE
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(folder / "model"), str(port)]
    works: dict[str, Callable[[int, Path], None]] = {
        "curl, thrown away": lambda port, _: curl(port, paths),
        "curl to files": lambda port, target: curl(port, paths, target),
        "curl, sync, sha256sum": lambda port, target: by_hand(port, paths, target),
        "ours": ours,
    }
    if shutil.which("hf"):
        works["hf + verify"] = theirs
    with subprocess.Popen(command) as hub:
        try:
            wait(port)
            runs = {name: list[tuple[float, float]]() for name in works}
            for first in range(args.rounds):
                order = list(works.items())
                for name, work in order[first % len(order) :] + order[: first % len(order)]:
                    runs[name].append(timed(work, port, folder, size))
        finally:
            hub.terminate()
            hub.wait(timeout=10)
            shutil.rmtree(folder)
    rates = {name: statistics.median(rate for rate, _ in found) for name, found in runs.items()}
    nothing, files, hand = list(rates.values())[:3]
    for name, rate in rates.items():
        used = statistics.median(used for _, used in runs[name])
        shown = ", ".join(f"{one:.0f}" for one, _ in runs[name])
        ratios = (
            f"{rate / nothing:.2f} of thrown away, {rate / files:.2f} of to files, {rate / hand:.2f} by hand"
        )
        sys.stdout.write(f"{name:22} {rate:6.0f} MB/s, {ratios}, {used:.1f} processor s/GB ({shown})\n")


def wait(port: int) -> None:
    """Until the hub has hashed its files and answers."""
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/_log", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the hub does not answer")


if __name__ == "__main__":
    main()
