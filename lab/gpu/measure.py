"""On the GPU machine: start, load, inspect and stop one stack, and write what was observed to OUT/NAME.json.

usage: measure.py LAUNCH.json NAME [--levels 1,32,128,256] [--set flag=value ...] [--env NAME=VALUE ...]
                  [--deadline-s 500] [--drain 32] [--capture] [--move-in HOST] [--stop-at REGEX]
                  [--profile 32,128] [--profile-prompts 512:64]
                  [--images 1540x812:5:16:4,1024x768:1:64:16] [--then "COMMAND"]
--stop-at: the signal that the unit's ExecStop sends to a server that does not listen yet, SIGHUP, as soon as the log
           says so; how long it takes is `stop`
--profile: kernels of a decode step at so many streams, after the levels
--profile-prompts: after that, kernels of the largest steps of TOKENS:REQUESTS, prompts of so many tokens, all at once
--images: after the levels, WIDTHxHEIGHT:A_REQUEST:REQUESTS:STREAMS (the last three default to 5:16:4)
--then: a command that runs after the levels, while the server is there; its output goes to OUT/NAME.then.txt
--spy: py-spy samples the first so many seconds of the start, where it lies beside the kit
level = CONCURRENCY[:PROMPTS[:IN[:OUT[:TOP_P[:HEADER=VALUE][:chat]]]]]; an empty value removes the flag or variable.
`!NAME=VALUE;...` is for controls.py, and `!spy=SECONDS` samples the level that follows
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cache_files
import controls
import drain
import images
import phases
import processes
import step_profile
from server import PERMITTED, SITE, Server, move_in, used_mib

HERE = Path(__file__).parent
OUT = Path(os.environ.get("RESULTS", "/tmp/results"))


def ask(*command: str) -> str:
    """Output of a program, or why there is none."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def machine() -> dict[str, Any]:
    """Card, driver and the versions that matter."""
    query = "name,memory.total,driver_version,power.limit,clocks.max.sm,clocks.max.mem"
    cards = ask("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits").splitlines()
    code = "import importlib.metadata as m;print(*[f'{p}=={m.version(p)}' for p in"
    code += " ('vllm','torch','transformers','mistral_common','flashinfer-python','triton')])"
    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SITE},
                           capture_output=True, text=True, check=False).stdout.split()  # fmt: skip
    return {"gpus": cards, "cores": os.cpu_count(), "kernel": os.uname().release, "packages": found}


class Load:
    """The benchmark process: imports while the server starts, then runs one level after the other."""

    def __init__(self, server: Server, launch: dict[str, Any], name: str, repetition: int = 0) -> None:
        self.path = OUT / f"{name}.load.json"
        self.output = (OUT / f"{name}.load.txt").open("w")
        self.process = subprocess.Popen(
            [
                sys.executable, HERE / "load.py", launch["weights_directory"], launch["model"],
                str(server.port), self.path, str(repetition),
            ],
            env={**os.environ, "PYTHONPATH": SITE, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.output, text=True, start_new_session=True,
        )  # fmt: skip

    def until(self, word: str) -> str:
        """The next line that starts with `word`; empty when the process has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.write(line)
            if line.startswith(word):
                return line
        return ""

    def run(self, level: str) -> dict[str, Any]:
        """One level."""
        assert self.process.stdin is not None
        self.process.stdin.write(level + "\n")
        self.process.stdin.flush()
        line = self.until("ROW ")
        return json.loads(line[4:]) if line else {"error": "the benchmark process ended", "level": level}

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.output.close()


def level_of(text: str) -> str:
    """`32` or `32:96:512:256:0.9` → the line that load.py reads."""
    parts = text.split(":")
    concurrency = int(parts[0])
    default = [concurrency, max(concurrency * 3, 4), 512, 256, 0]
    return " ".join(str(value) for value in parts + default[len(parts) :])


def snapshot(port: int, name: str, after_s: float) -> threading.Timer:
    """nvidia-smi and /metrics some seconds into a level."""

    def take() -> None:
        folder = OUT / f"{name.rpartition('-')[0]}.captured"
        folder.mkdir(exist_ok=True)
        label = name.rpartition("-")[2]
        (folder / f"nvidia-smi-q-{label}.xml").write_text(ask("nvidia-smi", "-q", "-x"))
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            (folder / f"metrics-{label}.txt").write_bytes(answer.read())

    timer = threading.Timer(after_s, take)
    timer.start()
    return timer


def chats(port: int, model: str) -> list[dict[str, Any]]:
    """What the chat route answers; the text is noise, the status is not."""
    tool = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    }
    out = []
    for extra in ({}, {"reasoning_effort": "none"}, {"reasoning_effort": "high"}, {"tools": [tool]}):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, **extra}
        status, text = drain.post(port, "/v1/chat/completions", body)
        out.append({"request": sorted(extra) and str(extra)[:60], "status": status, "text": text[:300]})
    return out


def keep(result: dict[str, Any]) -> None:
    """Write what is known by now: a machine may be taken away at any moment, and evidence.py reads the log's rest."""
    path = OUT / f"{result['run']}.json"
    whole = path.with_suffix(".json.new")
    whole.write_text(json.dumps(result, indent=1))
    whole.replace(path)


def then(command: str, name: str) -> dict[str, Any]:
    """Run a command while the server is there."""
    with (OUT / f"{name}.then.txt").open("w") as output:
        done = subprocess.run(["bash", "-c", command], stdout=output, stderr=output, check=False)
    return {"command": command, "exit_code": done.returncode}


def loaded(
    server: Server, load: Load, options: argparse.Namespace, result: dict[str, Any], deadline: float
) -> None:
    """Warm up, run the levels, ask the chat route."""
    load.until("READY")
    result["warm_up"] = load.run(level_of("64:64:512:16"))
    dmon = None
    if options.capture:
        (OUT / f"{options.name}.captured").mkdir(exist_ok=True)
        (OUT / f"{options.name}.captured/nvidia-smi-q-idle.xml").write_text(ask("nvidia-smi", "-q", "-x"))
        dmon = subprocess.Popen(["nvidia-smi", "dmon", "-s", "pucmt", "-d", "1", "-o", "T",
                                 "-f", OUT / f"{options.name}.captured/dmon.txt"])  # fmt: skip
    controlled: dict[str, str] = {}
    for level in filter(None, options.levels.split(",")):
        if level.startswith("!spy="):
            output = OUT / f"{options.name}.{len(result['throughput'])}.spy.txt"
            processes.spy(server.process.pid, output, int(level.partition("=")[2]))
            continue
        if level.startswith("!"):
            controlled = controls.set_to(level[1:])
            continue
        if deadline - time.time() < 25:
            result["throughput"].append({"level": level, "skipped": "no time left"})
            continue
        timer = (
            snapshot(server.port, f"{options.name}-c{level.replace(':', '_')}", 5)
            if options.capture
            else None
        )
        busy = processes.Busy(server.process.pid, load.process.pid)
        row = (
            load.run(level_of(level))
            | {"busy": busy.shares()}
            | ({"controls": controlled} if controlled else {})
        )
        if timer:
            timer.join()
        result["throughput"].append(row | {"ended": datetime.now(UTC).strftime("%H:%M:%S")})
        keep(result)
    if dmon:
        dmon.terminate()
        dmon.wait()
    if options.capture:
        result["chat"] = chats(server.port, result["model"])


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("launch", type=Path)
    parser.add_argument("name")
    parser.add_argument("--levels", default="1,32,128,256")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--deadline-s", type=float, default=500)
    parser.add_argument("--drain", type=int, default=0)
    parser.add_argument("--capture", action="store_true")
    parser.add_argument("--move-in", default="")
    parser.add_argument("--stop-at", default="")
    parser.add_argument("--profile", default="")
    parser.add_argument("--profile-prompts", default="")
    parser.add_argument("--images", default="")
    parser.add_argument("--then", default="")
    parser.add_argument("--spy", type=int, default=0)
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    controls.FILE.unlink(missing_ok=True)
    launch = json.loads(options.launch.read_text())
    home = Path("/var/lib/vllm")
    host = options.move_in or "first-host"
    if options.move_in:
        move_in(launch, home, host)
    deadline = time.time() + options.deadline_s
    log = OUT / f"{options.name}.log"
    result: dict[str, Any] = {**launch, "run": options.name, "machine": machine(), "throughput": []}
    result |= {"changed_flags": dict(one.split("=", 1) for one in options.set), "permitted": PERMITTED}
    result["changed_environment"] = dict(one.split("=", 1) for one in options.env)
    launch["environment"] = {
        key: value
        for key, value in {**launch["environment"], **result["changed_environment"]}.items()
        if value
    }
    result |= {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "other_host": options.move_in or None,
    }
    traces = OUT / f"{options.name}.traces"
    if options.profile or options.profile_prompts:
        result["changed_flags"]["profiler-config"] = step_profile.flag(traces)
    server = Server(launch, result["changed_flags"], log, home, host)
    started = datetime.fromtimestamp(server.began)  # noqa: DTZ006  # the log's clock is the machine's
    result |= {"started_argv": server.argv, "started_environment": server.environment}
    result |= {"outcome": "cut off", "ready_s": None, "began": started.isoformat()}
    keep(result)
    if options.spy:
        processes.spy(server.process.pid, OUT / f"{options.name}.start.spy.txt", options.spy)
    load = Load(server, launch, options.name)
    try:
        result["ready_s"] = server.wait(deadline, options.stop_at)
        result["memory_used_mib"] = used_mib()
        cache = Path(launch["cache_directory"])
        result |= {"caches": cache_files.sizes(cache), "home": cache_files.sizes(home)}
        result["written"] = cache_files.written_since(cache, server.began)
        if result["ready_s"] is not None:
            result["outcome"] = "ready"
            keep(result)
            loaded(server, load, options, result, deadline)
            result["memory_used_after_load_mib"] = used_mib()
            if options.then:
                result["then"] = then(options.then, options.name)
                keep(result)
            for one in filter(None, options.images.split(",")):
                result.setdefault("images", []).append(images.send(server.port, launch["model"], one))
                keep(result)
            for count in filter(None, options.profile.split(",")):
                found = step_profile.take(server.port, launch["model"], int(count), traces)
                result.setdefault("profile", []).append({"asked": int(count), "traces": found})
            for one in filter(None, options.profile_prompts.split(",")):
                found = step_profile.take_prompts(server.port, launch["model"], one, traces)
                result.setdefault("profile", []).append({"asked": one, "traces": found})
            if options.drain:
                result["drain"] = drain.drain(server.process, server.port, launch["model"], options.drain)
        else:
            running = f"stopped at {options.stop_at}" if options.stop_at else "not ready in time"
            result["outcome"] = "ended" if server.process.poll() is not None else running
    finally:
        load.close()
        result["stop"] = server.stop(signal.SIGHUP if options.stop_at else signal.SIGTERM)
        text = log.read_text(errors="replace")
        result |= phases.read(text, started)
        with gzip.open(OUT / f"{options.name}.log.gz", "wt") as packed:
            packed.write(text)
        log.unlink()
        keep(result)
        print(json.dumps({key: result.get(key) for key in
                          ("run", "outcome", "ready_s", "phases_s", "reported", "throughput", "images", "stop")}))  # fmt: skip


if __name__ == "__main__":
    main()
