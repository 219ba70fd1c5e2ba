"""How much one key's requests are delayed by another key that exceeds every limit.

usage: chrt -f 20 python bench_two_keys.py [PYTHON]      PYTHON of an environment with vLLM, else the fake engine

Rounds with and without the other key take turns. Then, on the same engine, more requests than it has places come with
one priority, or as a batch job's with `low`: how long does a person wait?
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
sys.path.insert(0, str(Path(__file__).parent))

import yaml
from adapted import KEY
from gateway import Gateway, free_port
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm_local import fake_engine
from pulumi_vllm_local.tiny_model import model_files
from two_keys import BATCH, BATCH_KEY, BLOCK, other_key, person

ROOT = Path(__file__).parents[2]
ROUNDS, QUESTIONS = 8, 20


def command(folder: Path, port: int, python: str | None, block: dict) -> tuple[list[str], dict[str, str]]:
    """The engine as the stack `local` starts it, with its own folders."""
    stack = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    planned = plan(Deployment.parse(stack | block))
    words = list(planned.argv)
    words[words.index("--model") + 1] = str(folder / "model")
    words[words.index("--port") + 1] = str(port)
    for module in (ROOT / "templates/usr/local/lib/pulumi-vllm/engine").glob("*.py"):
        shutil.copy(module, folder)
    (folder / "requests.json").write_text(json.dumps(planned.request_settings))
    model_files.write(folder / "model")
    own = {
        "PYTHONPATH": str(folder),
        "PULUMI_VLLM_REQUESTS": str(folder / "requests.json"),
        "PATH": os.environ["PATH"],
    }
    caches = {
        name: str(folder / "caches")
        for name, value in planned.environment.items()
        if value.startswith("/models")
    }
    if python is None:
        shutil.copytree(Path(fake_engine.__file__).parent, folder / "vllm", dirs_exist_ok=True)
        own |= {"VLLM_FAKE_START_S": "0", "VLLM_FAKE_TOKEN_MS": "10"}
    environment = {**planned.environment, **caches, "HOME": str(folder), "OMP_NUM_THREADS": "1"} | own
    return [python or sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], environment


@contextlib.contextmanager
def served(python: str | None, block: dict):
    """An engine, and a gateway in front of it."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "model").mkdir()
        words, environment = command(folder, port, python, block)
        with (folder / "engine.log").open("wb") as log:
            engine = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 600
            while True:
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
                ):
                    break
                assert engine.poll() is None, (folder / "engine.log").read_text()[-3000:]
                assert time.monotonic() < end
                time.sleep(0.5)
            keys = {"team-a": KEY, "batch": BATCH_KEY}
            with Gateway(folder / "gateway", port, keys, more=block) as there:
                yield there
        finally:
            engine.terminate()
            engine.wait(60)


async def median_ms(there: Gateway) -> float:
    """The median of some questions, one after another. A question that gets no answer ends the measurement."""
    times = []
    for _ in range(QUESTIONS):
        answer, seconds = await person(there)
        assert answer.status == 200, answer.body
        times.append(seconds * 1000)
    return statistics.median(times)


async def side_by_side(there: Gateway) -> None:
    statuses: Counter[int] = Counter()
    await median_ms(there)  # the first ones are slower
    ratios = []
    for _ in range(ROUNDS):
        alone = await median_ms(there)
        async with other_key(there, streams=8, pause_s=0.1) as found:
            await asyncio.sleep(2)
            beside = await median_ms(there)
        statuses += found
        ratios.append(beside / alone)
        print(
            f"alone {alone:6.1f} ms, beside the other key {beside:6.1f} ms: {ratios[-1] - 1:+.0%}", flush=True
        )
    print(
        f"the other key got {dict(statuses)}; median of the rounds {statistics.median(ratios) - 1:+.1%}",
        flush=True,
    )


async def crowded(there: Gateway, title: str) -> None:
    """A person's question while the other key has more requests than places."""
    times = []
    async with other_key(there, streams=24, pause_s=0.1) as statuses:
        await asyncio.sleep(5)
        for _ in range(10):
            answer, seconds = await person(there)
            assert answer.status == 200, answer.body
            times.append(seconds)
    print(
        f"{title}: median {statistics.median(times):.2f} s, longest {max(times):.2f} s, {dict(statuses)}",
        flush=True,
    )


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else None
    with served(python, BLOCK) as there:
        asyncio.run(side_by_side(there))
    for title, own in (("one priority, no limits", {}), ("the other key is low", {"priority": "low"})):
        block = {"access": {**BLOCK["access"], "keys": ["team-a", {"name": BATCH["name"], **own}]}}
        with served(python, block) as there:
            asyncio.run(crowded(there, title))


if __name__ == "__main__":
    main()
