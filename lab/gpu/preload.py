"""On the GPU machine: hold the weights with `vllm preload`, then start and load the engine twice with `--load-format ipc_cache`.

usage: preload.py LAUNCH.json NAME [arguments of measure.py for both starts]

The weights are vLLM's own dummy values (the daemon loads no plugins), so the load's rate says nothing. NAME.daemon.log is the
daemon's log, and its last line here says how long it took, or that it ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import measure
import model_folder
from server import NO_MULTICAST, SITE, with_flags

SERVER_ONLY = (
    "host", "port", "middleware", "shutdown-timeout", "tool-call-parser", "enable-auto-tool-choice",
    "allowed-media-domains", "reasoning-parser",
)  # fmt: skip
"""Flags of the API server, which the daemon does not know or need."""
WITHIN_S = 200


def main() -> None:
    """Once through."""
    path, name, *rest = sys.argv[1:]
    launch = json.loads(Path(path).read_text())
    weights = Path(launch["weights_directory"])
    if not (weights / "params.json").exists():
        model_folder.write(weights, launch["precision"])
    flags = with_flags(launch["argv"], dict.fromkeys(SERVER_ONLY, "") | {"load-format": "dummy"})
    given = dict(word.split("=", 1) for word in rest if word.startswith("CUDA_VISIBLE_DEVICES="))
    kept = {one: os.environ[one] for one in ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME") if one in os.environ}
    log = measure.OUT / f"{name}.daemon.log"
    began = time.time()
    with log.open("w") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.cli.main", "preload", *flags],
            env={**kept, **launch["environment"], **NO_MULTICAST, **given, "PYTHONPATH": SITE},
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    ready = False
    while not ready and daemon.poll() is None and time.time() - began < WITHIN_S:
        time.sleep(0.5)
        ready = "daemon READY" in log.read_text(errors="replace")
    print(
        f"the daemon {'is ready' if ready else f'is not ready, exit code {daemon.poll()},'} after {time.time() - began:.1f} s"
    )
    if ready:
        for number in ("first", "again"):
            words = [path, f"{name}-{number}", "--set", "load-format=ipc_cache", *rest]
            subprocess.run([sys.executable, "measure.py", *words], check=False)
    daemon.terminate()
    daemon.wait(30)


if __name__ == "__main__":
    main()
