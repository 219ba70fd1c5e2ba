"""On the GPU machine: starts what a stack starts, with the permitted differences, and stops it again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import drain
import model_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

SITE = os.environ.get("SITE", "/tmp/site")
"""The folder with the engine. Two engines can be measured side by side from two folders."""
PERMITTED = {"load-format": "random"}
"""The one flag that differs in every run but those of `vllm preload`: nobody has the weights there."""
NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
"""On a shared host NVLink multicast must stay off: a program that uses it can put the others' GPUs out of service."""


def with_flags(argv: Sequence[str], changes: dict[str, str]) -> list[str]:
    """`argv` with `--flag value` replaced or added; the value "" removes the flag, "on" adds it alone."""
    out: list[str] = []
    left = dict(changes)
    skip = False
    for position, word in enumerate(argv):
        if skip:
            skip = False
            continue
        name = word.removeprefix("--")
        if not word.startswith("--") or name not in changes:
            out.append(word)
            continue
        skip = position + 1 < len(argv) and not argv[position + 1].startswith("--")
        value = left.pop(name)
        out += [word, value] if value else []
    for name, value in left.items():
        out += [f"--{name}", value] if value not in ("", "on") else [f"--{name}"] if value else []
    return out


def move_in(launch: dict[str, Any], home: Path, host: str) -> None:
    """Pretend to be another host that was given the same volume: same cache path, copied files, nothing else kept."""
    cache = Path(launch["cache_directory"])
    if cache.exists():
        old = cache.with_name(cache.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        cache.rename(old)
        shutil.copytree(old, cache, symlinks=True)
    for left in (*Path("/tmp").glob("torchinductor*"), Path.home() / ".cache", Path.home() / ".triton",
                 Path.home() / ".nv", home):  # fmt: skip
        shutil.rmtree(left, ignore_errors=True)
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.1.1 {host}\n")


def used_mib(cards: str = "") -> list[int]:
    """Memory in use on each card, MiB; [] where nvidia-smi does not say. `cards`: "0,1" for some of them, "" for all."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    query += [f"--id={cards}"] if cards else []
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return [int(one) for one in lines if one.isdigit()]


class Server:
    """One `python -m vllm.entrypoints.openai.api_server`."""

    def __init__(
        self, launch: dict[str, Any], changes: dict[str, str], log: Path, home: Path, host: str
    ) -> None:
        folder = Path(launch["weights_directory"])
        if not (folder / "params.json").exists():
            model_folder.write(folder, launch["precision"])
        home.mkdir(parents=True, exist_ok=True)
        Path(launch["cache_directory"]).mkdir(parents=True, exist_ok=True)
        self.argv = with_flags(launch["argv"], {**PERMITTED, **changes})
        for name, text in launch["files"].items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text)
        # As the unit has it, the middleware's folder is on the path; a script of the kit may take its place.
        modules = f"{SITE}:{launch['environment']['PYTHONPATH']}:{Path(__file__).parent}"
        self.environment = {**launch["environment"], **NO_MULTICAST, "HOME": str(home), "PYTHONPATH": modules}
        self.cards = self.environment.get("CUDA_VISIBLE_DEVICES", "")
        # What `vllm preload` or another engine holds on these cards is not waited for.
        self.free_mib = max(used_mib(self.cards), default=0) + 1024
        self.port = int(self.argv[self.argv.index("--port") + 1])
        self.path = log
        self.log: IO[str] = log.open("w")
        self.began = time.time()
        # unshare and exec keep the process id: signals reach the server as systemd's would.
        named = ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
        program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME") if key in os.environ}
        self.process = subprocess.Popen(
            [*named, *program, *self.argv],
            env={**kept, **self.environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, deadline: float, until: str = "") -> float | None:
        """Seconds until /health says 200; None when the process ended, the time is over or the log says `until`."""
        while time.time() < deadline and self.process.poll() is None:
            if drain.health(self.port) == 200:
                return round(time.time() - self.began, 1)
            if until and re.search(until, self.path.read_text(errors="replace")):
                return None
            time.sleep(0.2)
        return None

    def stop(self, signal: int) -> dict[str, Any]:
        """`signal` to the main process, after 45 s SIGKILL to its session, as the unit's stop does.

        `left` counts the others that lived on when the main one was gone (systemd kills them), `free_s` the seconds
        until no card has 1 GiB more in use than before, None after a minute or where nvidia-smi says nothing.
        """
        began = time.time()
        if self.process.poll() is None:
            self.process.send_signal(signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(45)
        took = round(time.time() - began, 1)
        killed = self.process.poll() is None
        session = ["-s", str(self.process.pid)]
        alive = subprocess.run(
            ["pgrep", *session], capture_output=True, text=True, check=False
        ).stdout.split()
        left = [one for one in alive if int(one) != self.process.pid]
        subprocess.run(["pkill", "-KILL", *session], check=False)
        self.process.wait(10)
        self.log.close()
        free = None
        while free is None and time.time() - began < 60:
            if max(used_mib(self.cards), default=self.free_mib + 1) <= self.free_mib:
                free = round(time.time() - began, 1)
            else:
                time.sleep(0.5)
        return {"stop_s": took, "had_to_kill": killed, "left": len(left), "free_s": free}
