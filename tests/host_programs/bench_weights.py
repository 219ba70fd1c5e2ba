"""Compare the weights program with the loop-back's own rate and with `hf download`, on the local cloud's hub.

python tests/host_programs/bench_weights.py [--mib 1024] [--files 4] [--rounds 3] [--folder /var/tmp]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/weights"
NAME, REVISION, PIECE = "acme/large", "0" * 40, 1 << 20


def serve(folder: Path, port: int) -> None:
    """The hub, as a process of its own."""
    import uvicorn
    from pulumi_vllm.localcloud.hub import application
    from pulumi_vllm.localcloud.hub_content import Repository

    app = application([Repository.read(NAME, folder, REVISION)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def drink(port: int, paths: list[str], target: Path | None = None) -> None:
    """The machine's own rate: read every file over two connections; keep nothing, or write it unverified."""

    def one(mine: list[str]) -> None:
        buffer = bytearray(PIECE)
        link = http.client.HTTPConnection("127.0.0.1", port)
        for path in mine:
            link.request("GET", f"/{NAME}/resolve/{REVISION}/{path}")
            response = link.getresponse()
            with (target / path if target else Path(os.devnull)).open("wb", buffering=0) as out:
                while count := response.readinto(buffer):
                    out.write(memoryview(buffer)[:count])
        link.close()

    threads = [threading.Thread(target=one, args=(paths[first::2],)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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


def timed(work: Callable[[int, Path], None], port: int, folder: Path, size: int) -> float:
    """MB/s of one download into an empty folder."""
    target = Path(tempfile.mkdtemp(dir=folder))
    os.sync()
    begun = time.monotonic()
    work(port, target)
    took = time.monotonic() - begun
    shutil.rmtree(target)
    return size / 1e6 / took


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
        "loop-back": lambda port, _: drink(port, paths),
        "to the disk": lambda port, target: drink(port, paths, target),
        "ours": ours,
    }
    if shutil.which("hf"):
        works["hf + verify"] = theirs
    with subprocess.Popen(command) as hub:
        try:
            wait(port)
            rates = {name: list[float]() for name in works}
            for _ in range(args.rounds):
                for name, work in works.items():
                    rates[name].append(timed(work, port, folder, size))
        finally:
            hub.terminate()
            hub.wait(timeout=10)
            shutil.rmtree(folder)
    base, disk = (statistics.median(rates[name]) for name in ("loop-back", "to the disk"))
    for name, found in rates.items():
        middle = statistics.median(found)
        shown = ", ".join(f"{rate:.0f}" for rate in found)
        parts = f"{middle / base:.2f} of loop-back, {middle / disk:.2f} of its disk"
        sys.stdout.write(f"{name:12} {middle:6.0f} MB/s, {parts} ({shown})\n")


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
