"""On the GPU machine: the units of a stack, as rendered and locked in, under the systemd that host.sh started.

usage: host_run.py FOLDER LAUNCH.json NAME [--levels 1,32,256] [--under-canary 768:1536] [--signals KILL,STOP] [--deadline-s 500]
       [--then "COMMAND"]      (FOLDER from host_files.py)

Checks the machine, starts the engine and the gateway, runs the readiness check, then `pulumi-vllm smoke` and `bench` through the gateway,
and the same load without the gateway (neither where the levels are empty). `--then` runs a command at this point. Then it starts the canary's timer and sends the levels of
`--under-canary` to the engine, which must live. It sends each signal to the engine's core, and waits until the gateway passes a token on
again. Last, it stops the engine with 32 streams running.
OUT/NAME.host.json says how each ended.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import drain
import measure
import model_folder
from server import SITE

ROOT = Path(__file__).parent
OUT = measure.OUT
TREE = Path("/tmp/gpu-host")
UNITS = (
    "models.mount",
    "vllm-preflight.service",
    "haproxy.service",
    "vllm.service",
    "vllm-readiness.service",
)
CANARY = ("vllm-canary.timer", "vllm-canary.service")
CHECK = "vllm-preflight.service"
CORE = "VLLM::EngineCor"
"""The kernel keeps 15 characters of a process's title."""
PASS = (
    f"cd /etc/systemd/system; mkdir -p {CHECK}.d; printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' "
    f"> {CHECK}.d/pass.conf; systemctl daemon-reload"
)
"""What the check finds is kept; the engine is tried all the same."""
LOCKED = ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "Uid")
STREAMS, TOKENS = 32, 512


def inside(*command: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
    """A command on that host."""
    process = (TREE / "pid").read_text().strip()
    return subprocess.run(
        ["nsenter", "-t", process, "-m", "-p", "-u", "-i", "-C", *command],
        capture_output=True, text=True, check=False, timeout=within_s,
    )  # fmt: skip


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    lines = inside("systemctl", "show", unit, *(f"--property={name}" for name in names)).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def start(unit: str, within_s: float) -> dict[str, Any]:
    """Start a unit, wait for it, and say how it ended; the last lines of its journal where it failed."""
    began = time.monotonic()
    done = inside("systemctl", "start", unit, within_s=within_s)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "code": done.returncode}
    found |= show(unit, "ActiveState", "Result", "ExecMainStatus")
    if done.returncode:
        found["journal"] = inside(
            "journalctl", "-u", unit, "-n", "30", "-o", "cat", "--no-pager"
        ).stdout.splitlines()
    return found


def ready(deadline: float) -> float | None:
    """Seconds until the engine calls itself healthy; None when its unit is not active any more, or time is over."""
    began = time.monotonic()
    while time.time() < deadline and show("vllm.service", "ActiveState")["ActiveState"] in (
        "active",
        "activating",
    ):
        if drain.health(8000) == 200:
            return round(time.monotonic() - began, 1)
        time.sleep(0.5)
    return None


def locked() -> list[dict[str, str]]:
    """What the kernel says of each process of the engine's unit."""
    listed = inside("systemctl", "show", "vllm.service", "--property=ControlGroup").stdout
    group = listed.partition("=")[2].strip()
    numbers = inside("cat", f"/sys/fs/cgroup{group}/cgroup.procs").stdout.split()
    found = []
    for number in numbers:
        lines = inside("cat", f"/proc/{number}/status").stdout.splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        found.append(
            {"name": status.get("Name", "").strip()} | {key: status.get(key, "").strip() for key in LOCKED}
        )
    return found


def ask(key: str, *words: str, within_s: float = 300) -> dict[str, Any]:
    """A subcommand of `pulumi-vllm` through the gateway."""
    done = subprocess.run(
        [sys.executable, "-m", "pulumi_vllm.cli", *words, "--url", "https://127.0.0.1:443/v1", "--json",
         "--ca", TREE / "merged/etc/pulumi-vllm/gateway/ca.pem"],
        env={**os.environ, "VLLM_API_KEY": key, "PYTHONPATH": f"{os.environ.get('COMPONENTS', ROOT)}:{SITE}"},
        capture_output=True, text=True, check=False, timeout=within_s,
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    return {"code": done.returncode, "answer": answer, "stderr": done.stderr.splitlines()[-12:]}


def without_gateway(launch: dict[str, Any], name: str, levels: str) -> list[dict[str, Any]]:
    """The same load straight to the engine, by vLLM's own benchmark."""

    class Running:
        port = 8000

    load = measure.Load(Running(), launch, f"{name}.direct")  # type: ignore[arg-type]
    try:
        load.until("READY")
        return [load.run(measure.level_of(level)) for level in levels.split(",")]
    except BrokenPipeError:
        return [{"error": "the benchmark process ended"}]
    finally:
        load.close()


def token(key: str, model: str) -> int:
    """Status of a request for one token through the gateway; 0 when none comes within 5 s."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = Request("https://127.0.0.1:443/v1/chat/completions", json.dumps(body).encode(), headers)
    trusted = ssl.create_default_context(cafile=str(TREE / "merged/etc/pulumi-vllm/gateway/ca.pem"))
    try:
        with urlopen(request, timeout=5, context=trusted) as answer:  # noqa: S310 (our own gateway)
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def interrupted(signal: str, key: str, model: str, within_s: float = 300) -> dict[str, Any]:
    """Send a signal to the engine's core. The seconds until the next token, and each change of what clients get."""
    # A hang counts only once the canary has had a token of this process.
    inside("systemctl", "start", CANARY[1], within_s=160)
    cores = inside("pgrep", "-x", CORE).stdout.split()
    found: dict[str, Any] = {
        "signal": signal,
        "cores": len(cores),
        "before": token(key, model),
        "changes": [],
    }
    inside("kill", f"-{signal}", *cores)
    began, last, status = time.monotonic(), None, 0
    while status != 200 and time.monotonic() - began < within_s:
        status = token(key, model)
        if (status, (health := drain.health(8000))) != last:
            last = status, health
            found["changes"].append(
                {"after_s": round(time.monotonic() - began, 1), "gateway": status, "health": health}
            )
        time.sleep(0.2)
    found["token_after_s"] = round(time.monotonic() - began, 1) if status == 200 else None
    return found | {"unit": show("vllm.service", "ActiveState", "NRestarts", "ExecMainStatus")}


def under_canary(launch: dict[str, Any], name: str, levels: str) -> dict[str, Any]:
    """Load while the canary's timer runs: the rows, what each of its runs found, and how often the unit was restarted."""
    finished = threading.Event()
    found: list[dict[str, str]] = []

    def watch() -> None:
        while not finished.wait(2):
            text = inside("cat", "/var/lib/pulumi-vllm/canary.json").stdout
            result = json.loads(text) if text else {}
            one = {key: str(result.get(key, "")) for key in ("time", "engine", "observed", "gateway")}
            if text and one not in found:
                found.append(one)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows = without_gateway(launch, f"{name}.canary", levels)
    finished.set()
    watcher.join(60)
    return {"rows": rows, "canary": found, "unit": show("vllm.service", "ActiveState", "NRestarts")}


def stop(model: str) -> dict[str, Any]:
    """`systemctl stop` three seconds into the streams."""
    streams = [drain.Stream(8000, model, number, TOKENS) for number in range(STREAMS)]
    for stream in streams:
        stream.start()
    time.sleep(3)
    stopped = time.monotonic()
    waiter = threading.Thread(target=inside, args=("systemctl", "stop", "vllm.service"))
    waiter.start()
    for stream in streams:
        stream.join(60)
    waiter.join(70)
    return {
        "streams": STREAMS,
        "tokens_each": TOKENS,
        "finished": sum(stream.done and stream.got == TOKENS and not stream.error for stream in streams),
        "last_stream_ended_s": round(max(stream.ended for stream in streams) - stopped, 1),
        "unit_stopped_s": round(time.monotonic() - stopped, 1),
        "unit": show("vllm.service", "ActiveState", "Result", "ExecMainStatus"),
    }


def with_canary(
    options: argparse.Namespace, key: str, launch: dict[str, Any], result: dict[str, Any]
) -> None:
    """Start the canary's timer; load the engine, then interrupt it, as far as the options ask for it."""
    if options.signals or options.under_canary:
        inside("systemctl", "start", CANARY[0])
    if options.under_canary:
        result["under_canary"] = under_canary(launch, options.name, options.under_canary)
        keep(options.name, result)
    for one in filter(None, options.signals.split(",")):
        result.setdefault("signals", []).append(interrupted(one, key, launch["model"]))
        keep(options.name, result)
    result["canary"] = inside("cat", "/var/lib/pulumi-vllm/canary.json").stdout


def keep(name: str, result: dict[str, Any]) -> None:
    """Write what is known by now: a machine may be taken away at any moment."""
    (OUT / f"{name}.host.json").write_text(json.dumps(result, indent=1))


def main() -> None:
    """Once through, whatever fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("launch", type=Path)
    parser.add_argument("name")
    parser.add_argument("--levels", default="1,32,256")
    parser.add_argument("--under-canary", default="")
    parser.add_argument("--signals", default="")
    parser.add_argument("--deadline-s", type=float, default=500)
    parser.add_argument("--then", default="")
    options = parser.parse_args()
    deadline = time.time() + options.deadline_s
    launch = json.loads(options.launch.read_text())
    weights = Path(launch["weights_directory"])
    if not (weights / "params.json").exists():
        model_folder.write(weights, launch["precision"])
    subprocess.run(["chmod", "-R", "go+rX", "/models"], check=True)
    key = (options.folder / "key").read_text()
    version = inside("systemctl", "--version").stdout.splitlines()
    result: dict[str, Any] = {"run": options.name, "systemd": version[0] if version else None, "units": {}}
    try:
        for unit in UNITS[:-1]:
            if unit == UNITS[0] and show(unit, "ActiveState")["ActiveState"] == "active":
                continue  # A second run; nothing there calls the mounted folder's disk a device, so systemd would wait for it.
            result["units"][unit] = start(unit, 200)
            if unit == CHECK and result["units"][unit]["code"]:
                inside("sh", "-c", PASS)
        result["ready_s"] = ready(deadline)
        result["processes"] = locked()
        if result["ready_s"] is not None:
            result["units"][UNITS[-1]] = start(UNITS[-1], 200)
            if options.levels:
                result["smoke"] = ask(key, "smoke")
                result["bench"] = ask(key, "bench", "--levels", options.levels, "--out", str(OUT / "bench"))
                result["without_gateway"] = without_gateway(launch, options.name, options.levels)
            if options.then:
                result["then"] = measure.then(options.then, options.name)
                keep(options.name, result)
            with_canary(options, key, launch, result)
            result["stop"] = stop(launch["model"])
    finally:
        for unit in (*UNITS, *CANARY):
            text = inside("journalctl", "-u", unit, "-o", "short-iso", "--no-pager").stdout
            (OUT / f"{options.name}.{unit}.txt").write_text(text)
        keep(options.name, result)
        print(json.dumps(result)[:6000])


if __name__ == "__main__":
    main()
