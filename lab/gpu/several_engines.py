"""On the GPU machine: the units of a stack with several engines, as rendered, under the systemd that host.sh started.

usage: several_engines.py FOLDER LAUNCH.json NAME [--levels 256,512,1024] [--kill 128] [--rolling 64] [--turns 10]
       (FOLDER from host_files.py)

Starts the gateway and all engines at once, and runs the readiness check. Every level is sent through the gateway, half of its streams
by each of two clients. Then `--kill` streams run while the first engine's core is killed, `--rolling` clients ask all the time while
one engine after the other is drained and restarted, and one conversation has `--turns` turns. OUT/NAME.engines.json says how each ended.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import drain
import host_run
import measure
import model_folder
from host_run import CHECK, CORE, OUT, PASS, TREE, inside, show, start

GATEWAY = "https://127.0.0.1"
FIRST_PORT = 8000
READY_WITHIN_S = 300


class Stream(threading.Thread):
    """One streamed request through the gateway: its status, how many tokens came, and whether it ended well."""

    def __init__(self, key: str, model: str, prompt: str, tokens: int) -> None:
        super().__init__(daemon=True)
        self.key, self.status, self.events, self.done, self.error = key, 0, 0, False, ""
        self.body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
        }

    def run(self) -> None:
        """Read to the end."""
        trusted = ssl.create_default_context(cafile=str(TREE / "merged/etc/pulumi-vllm/gateway/ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", 443, timeout=120, context=trusted)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/completions", json.dumps(self.body), headers)
            answer = connection.getresponse()
            self.status = answer.status
            for line in answer:
                self.done = self.done or line.startswith(b"data: [DONE]")
                self.events += line.startswith(b"data: {")
                # A token may be the word "error" too.
                self.error = (
                    line.decode(errors="replace")[:200] if line.startswith(b'data: {"error"') else self.error
                )
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)[:200]
        finally:
            connection.close()

    @property
    def well(self) -> bool:
        """Whether the whole answer came."""
        return self.status == 200 and self.done and not self.error


class GatewayLoad(measure.Load):
    """The benchmark process, sent to the gateway."""

    port = GATEWAY

    def __init__(self, launch: dict[str, Any], name: str, number: int) -> None:
        # Each client has prompts of its own, or the prefix cache would answer the second one's.
        super().__init__(self, launch, f"{name}.{number}", repetition=100 * number)  # type: ignore[arg-type]


def counters(engines: int) -> list[dict[str, float]]:
    """What each engine counts: tokens, requests that run, blocks of the prefix cache that were hit."""
    names = "generation_tokens_total|num_requests_running|prefix_cache_hits_total|prefix_cache_queries_total"
    found = []
    for number in range(engines):
        with urlopen(f"http://127.0.0.1:{FIRST_PORT + number}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        found.append(
            {
                name: float(value)
                for name, value in re.findall(rf"^vllm:({names})\{{[^}}]*\}} (\S+)", text, re.MULTILINE)
            }
        )
    return found


def healthy(number: int, within_s: float = READY_WITHIN_S) -> float | None:
    """Seconds until an engine is healthy; None if it is not in time."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if drain.health(FIRST_PORT + number) == 200:
            return round(time.monotonic() - began, 1)
        time.sleep(0.2)
    return None


def start_all(engines: int) -> dict[str, Any]:
    """The units before the engines, all engines at once, then the readiness check."""
    found: dict[str, Any] = {"units": {}}
    for unit in ("models.mount", CHECK, "haproxy.service"):
        found["units"][unit] = start(unit, 200)
        if unit == CHECK and found["units"][unit]["code"]:
            inside("sh", "-c", PASS)
    inside("systemctl", "start", "--no-block", *(f"vllm@{number}.service" for number in range(engines)))
    with ThreadPoolExecutor(engines) as pool:
        found["ready_s"] = list(pool.map(healthy, range(engines)))
    found["units"]["vllm-readiness.service"] = start("vllm-readiness.service", 200)
    return found


def level(loads: list[GatewayLoad], streams: int, engines: int) -> dict[str, Any]:
    """One level, its streams divided among the clients."""
    before = counters(engines)
    with ThreadPoolExecutor(len(loads)) as pool:
        rows = list(pool.map(lambda load: load.run(measure.level_of(str(streams // len(loads)))), loads))
    after = counters(engines)
    tokens = sum(row.get("completed", 0) * row["output_tokens"] for row in rows)
    return {
        "streams": streams,
        "tokens_per_s": round(tokens / max(row.get("duration", 1e9) for row in rows), 1),
        "rows": rows,
        "tokens_by_engine": [
            b["generation_tokens_total"] - a["generation_tokens_total"]
            for a, b in zip(before, after, strict=True)
        ],
    }


def killed(key: str, model: str, streams: int, engines: int) -> dict[str, Any]:
    """`kill -9` of the first engine's core under load: which streams end, what clients get, when the engine is back."""
    running = [Stream(key, model, f"Stream {number}: " + "count on " * 200, 800) for number in range(streams)]
    for one in running:
        one.start()
    time.sleep(6)
    counted = [one["num_requests_running"] for one in counters(engines)]
    group = (
        inside("systemctl", "show", "vllm@0.service", "--property=ControlGroup")
        .stdout.partition("=")[2]
        .strip()
    )
    members = inside("cat", f"/sys/fs/cgroup{group}/cgroup.procs").stdout.split()
    cores = [one for one in inside("pgrep", "-x", CORE).stdout.split() if one in members]
    inside("kill", "-KILL", *cores)
    began = time.monotonic()
    changes: list[dict[str, Any]] = []
    back = None
    while back is None and time.monotonic() - began < READY_WITHIN_S:
        now = {"new_request": host_run.token(key, model), "engine0": drain.health(FIRST_PORT)}
        if not changes or now != {name: changes[-1][name] for name in now}:
            changes.append({"after_s": round(time.monotonic() - began, 1), **now})
        if now["engine0"] == 200 and time.monotonic() - began > 5:
            back = round(time.monotonic() - began, 1)
        time.sleep(0.2)
    for one in running:
        one.join(60)
    errors = [one.error for one in running if not one.well]
    return {"streams": streams, "running_by_engine": counted, "cores_killed": len(cores), "ended": len(errors),
            "errors": sorted(set(errors))[:5], "changes": changes, "engine_back_s": back,
            "unit": show("vllm@0.service", "ActiveState", "NRestarts")}  # fmt: skip


def rolling(key: str, model: str, clients: int, engines: int) -> dict[str, Any]:
    """Drain and restart one engine after the other while clients ask without a pause: how many requests are lost."""
    over = threading.Event()
    answers: list[Stream] = []

    def ask(number: int) -> None:
        turn = 0
        while not over.is_set():
            one = Stream(key, model, f"Client {number}, request {turn}: " + "go on " * 60, 128)
            one.run()
            answers.append(one)
            turn += 1

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(ask, number)
        restarts = []
        for number in range(engines):
            time.sleep(3)
            program, server = "/usr/local/lib/pulumi-vllm/drain", f"vllm/engine{number}"
            since = time.monotonic()
            drained = inside(program, "--server", server, "--timeout", "60", within_s=90)
            took = round(time.monotonic() - since, 1)
            inside("systemctl", "restart", f"vllm@{number}.service", within_s=90)
            ready = healthy(number)
            time.sleep(2)  # the gateway checks every second
            undone = inside(program, "--undo", "--server", server)
            restarts.append({"engine": number, "drained_s": took, "drain": drained.returncode, "said": drained.stderr[-300:],
                             "ready_s": ready, "undo": undone.returncode})  # fmt: skip
        time.sleep(3)
        over.set()
    lost = [one for one in answers if not one.well]
    return {"clients": clients, "seconds": round(time.monotonic() - began, 1), "restarts": restarts, "requests": len(answers),
            "lost": len(lost), "how": sorted({f"{one.status} {one.error}" for one in lost})[:8]}  # fmt: skip


def conversation(key: str, model: str, turns: int, engines: int) -> dict[str, Any]:
    """One chat of several turns: on which engine the prefix cache is hit, and which of them gives tokens."""
    trusted = ssl.create_default_context(cafile=str(TREE / "merged/etc/pulumi-vllm/gateway/ca.pem"))
    messages = [{"role": "user", "content": "A long story, please. " + "once upon a time " * 300}]
    before, statuses = counters(engines), []
    for turn in range(turns):
        connection = http.client.HTTPSConnection("127.0.0.1", 443, timeout=60, context=trusted)
        body = json.dumps({"model": model, "messages": messages, "max_tokens": 32})
        connection.request(
            "POST",
            "/v1/chat/completions",
            body,
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        statuses.append(answer.status)
        answer.read()
        connection.close()
        messages += [
            {"role": "assistant", "content": f"Part {turn}."},
            {"role": "user", "content": f"And then, {turn}?"},
        ]
    after = counters(engines)
    by_engine = [{name: b[name] - a[name] for name in b} for a, b in zip(before, after, strict=True)]
    return {"turns": turns, "statuses": statuses, "by_engine": by_engine}


def main() -> None:
    """Once through, whatever fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("launch", type=Path)
    parser.add_argument("name")
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--levels", default="256,512,1024")
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--rolling", type=int, default=0)
    parser.add_argument("--turns", type=int, default=0)
    options = parser.parse_args()
    launch = json.loads(options.launch.read_text())
    weights = Path(launch["weights_directory"])
    if not (weights / "params.json").exists():
        model_folder.write(weights, launch["precision"])
    subprocess.run(["chmod", "-R", "go+rX", "/models"], check=True)
    key, model, engines = (options.folder / "key").read_text(), launch["model"], options.engines
    os.environ["OPENAI_API_KEY"] = key  # what the benchmark sends
    result: dict[str, Any] = {
        "run": options.name,
        "machine": measure.machine(),
        "engines": engines,
        "flags": launch["argv"],
    }

    def keep() -> None:
        (OUT / f"{options.name}.engines.json").write_text(json.dumps(result, indent=1))

    loads = [GatewayLoad(launch, options.name, number) for number in (1, 2)] if options.levels else []
    try:
        result |= start_all(engines)
        keep()
        for load in loads:
            load.until("READY")
        for load in loads:
            load.run(measure.level_of("64:64:512:16"))
        for streams in filter(None, options.levels.split(",")):
            result.setdefault("levels", []).append(level(loads, int(streams), engines))
            keep()
        for name, does, count in (("conversation", conversation, options.turns), ("kill", killed, options.kill),
                                  ("rolling", rolling, options.rolling)):  # fmt: skip
            if count:
                result[name] = does(key, model, count, engines)
                keep()
    finally:
        for load in loads:
            load.close()
        for unit in (
            "haproxy.service",
            "vllm-readiness.service",
            *(f"vllm@{number}.service" for number in range(engines)),
        ):
            text = inside("journalctl", "-u", unit, "-o", "short-iso", "--no-pager").stdout
            (OUT / f"{options.name}.{unit}.txt").write_text(text)
        inside("systemctl", "stop", *(f"vllm@{number}.service" for number in range(engines)), within_s=120)
        keep()
        print(
            json.dumps({name: one for name, one in result.items() if name not in {"flags", "units"}})[:9000]
        )


if __name__ == "__main__":
    main()
