"""How much one key's requests are delayed by another key that exceeds every limit.

usage: chrt -f 20 python bench_two_keys.py [--python PYTHON]
       python bench_two_keys.py --at 127.0.0.1:443 --ca ca.pem --keys keys.json --others batch:2 [--model NAME]
              [--context 262144] [--people 1,16] [--rounds 2] [--seconds 4,4,8] [--tokens 32] [--metrics URL]
              [--out FILE] [--long TOKENS]

PYTHON is that of an environment with vLLM; without it the fake engine answers. Rounds with and without the other key
take turns. Then, on the same engine, more requests than it has places come with one priority, or as a batch job's with
`low`: how long does a person wait?

--at asks an endpoint that runs already. keys.json maps the names of keys to their values; the first is the people's.
--others names the keys that take turns beside it, each with as many requests at once as it may have. In a round nobody
else asks, then the other key sends so many ordinary requests, then it exceeds every limit; --seconds says how long
each. --metrics is vLLM's own address of them, for the engine's steps in that time. --long 100000: instead of all that,
the people ask while one prompt of so many tokens of the other key is read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
sys.path.insert(0, str(Path(__file__).parent))

import yaml
from adapted import ENGINE_MODULES, KEY
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm_local import fake_engine
from pulumi_vllm_local.tiny_model import model_files
from rendered_gateway import Gateway, free_port
from two_keys import BATCH, BATCH_KEY, BLOCK, Asked, Endpoint, other_key, person

ROOT = Path(__file__).parents[2]
ROUNDS, QUESTIONS = 8, 20


def command(folder: Path, port: int, python: str | None, block: dict) -> tuple[list[str], dict[str, str]]:
    """The engine as the stack `local` starts it, with its own folders."""
    stack = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    planned = plan(Deployment.parse(stack | block))
    words = list(planned.argv)
    words[words.index("--model") + 1] = str(folder / "model")
    words[words.index("--port") + 1] = str(port)
    for module in ENGINE_MODULES.glob("*.py"):
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
                yield Endpoint.of(there, KEY)
        finally:
            engine.terminate()
            engine.wait(60)


async def median_ms(there: Endpoint) -> float:
    """The median of some questions, one after another. A question that gets no answer ends the measurement."""
    times = []
    for _ in range(QUESTIONS):
        asked = await person(there)
        assert asked.well, asked
        times.append(asked.whole_s * 1000)
    return statistics.median(times)


async def side_by_side(there: Endpoint) -> None:
    statuses: Counter[int] = Counter()
    await median_ms(there)  # the first ones are slower
    ratios = []
    for _ in range(ROUNDS):
        alone = await median_ms(there)
        async with other_key(replace(there, key=BATCH_KEY), streams=8, pause_s=0.1) as found:
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


async def crowded(there: Endpoint, title: str) -> None:
    """A person's question while the other key has more requests than places."""
    times = []
    async with other_key(replace(there, key=BATCH_KEY), streams=24, pause_s=0.1) as statuses:
        await asyncio.sleep(5)
        for _ in range(10):
            asked = await person(there)
            assert asked.well, asked
            times.append(asked.whole_s)
    print(
        f"{title}: median {statistics.median(times):.2f} s, longest {max(times):.2f} s, {dict(statuses)}",
        flush=True,
    )


COUNTED = {
    "steps": "vllm:iteration_tokens_total_count",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "answer_tokens": "vllm:generation_tokens_total",
}


def counters(address: str | None) -> dict[str, float]:
    """What vLLM has counted until now."""
    if not address:
        return {}
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    return {
        name: sum(float(value) for value in re.findall(rf"^{metric}{{[^}}]*}} (\S+)$", text, re.MULTILINE))
        for name, metric in COUNTED.items()
    }


async def people_ask(there: Endpoint, people: int, tokens: int, seconds: float) -> list[Asked]:
    """So many people ask one question after another for a while."""
    end = time.monotonic() + seconds

    async def one() -> list[Asked]:
        found = []
        while time.monotonic() < end or not found:
            found.append(await person(there, tokens, words=200))
        return found

    return list(itertools.chain(*await asyncio.gather(*(one() for _ in range(people)))))


def summary(asked: list[Asked]) -> dict[str, Any]:
    """How many questions there were, which of them failed, and the latencies."""
    return {
        "questions": len(asked),
        "failed": [one.received[:300].decode(errors="replace") for one in asked if not one.well],
        "whole_ms": round(statistics.median(one.whole_s for one in asked) * 1000, 1),
        "longest_ms": round(max(one.whole_s for one in asked) * 1000, 1),
        "first_ms": round(statistics.median(one.first_s for one in asked) * 1000, 1),
    }


async def observed(
    there: Endpoint, options: argparse.Namespace, people: int, seconds: float
) -> dict[str, Any]:
    """What the people got in that time, and what the engine did."""
    before, began = counters(options.metrics), time.monotonic()
    asked = await people_ask(there, people, options.tokens, seconds)
    took, after = time.monotonic() - began, counters(options.metrics)
    done = {name: after[name] - before[name] for name in before}
    return {
        **summary(asked),
        **({"step_ms": round(took / done["steps"] * 1000, 2)} if done.get("steps") else {}),
        **{name: round(done[name] / took) for name in done if name != "steps"},
    }


async def long_prompt(
    there: Endpoint, its_key: Endpoint, options: argparse.Namespace, people: int
) -> dict[str, Any]:
    """What the people get while one long prompt is read, and how long that takes."""
    alone = await observed(there, options, people, 2)
    prompt = asyncio.create_task(person(its_key, 1, options.long))
    await asyncio.sleep(0.7)

    async def one() -> list[Asked]:
        found = []
        while not prompt.done() or not found:
            found.append(await person(there, options.tokens, words=200))
        return found

    asked = list(itertools.chain(*await asyncio.gather(*(one() for _ in range(people)))))
    found = {"people": people, "long": options.long, "alone": alone, **summary(asked)}
    return found | {"long_s": round((await prompt).whole_s, 2)}


async def beside(there: Endpoint, options: argparse.Namespace) -> None:
    """All rounds at an endpoint that runs already."""
    keys, rows = json.loads(await asyncio.to_thread(Path(options.keys).read_text)), []
    people_key = replace(there, key=next(iter(keys.values())))
    seconds = [float(one) for one in options.seconds.split(",")]
    await people_ask(people_key, 4, options.tokens, 2)  # the first ones are slower
    for other in options.others.split(","):
        name, _, places = other.partition(":")
        its_key = replace(there, key=keys[name])
        for people in map(int, options.people.split(",")):
            if options.long:
                print(json.dumps(await long_prompt(people_key, its_key, options, people)), flush=True)
                continue
            for number in range(options.rounds):
                row = {"other": name, "places": int(places), "people": people, "round": number}
                row["alone"] = await observed(people_key, options, people, seconds[0])
                for doing, streams, lasts in (
                    ("ordinary", int(places), seconds[1]),
                    ("abuse", max(8, 2 * int(places)), seconds[2]),
                ):
                    if not lasts:
                        continue
                    async with other_key(its_key, streams, 0.1 if doing == "abuse" else 0, doing) as found:
                        await asyncio.sleep(options.settle)
                        row[doing] = await observed(people_key, options, people, lasts)
                    row[doing]["statuses"] = dict(found)
                    row[doing]["rise"] = round(row[doing]["whole_ms"] / row["alone"]["whole_ms"] - 1, 3)
                    await asyncio.sleep(1)  # what was cut off ends in the engine
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.out:
                    text = json.dumps(rows, indent=1) + "\n"
                    await asyncio.to_thread(Path(options.out).write_text, text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python")
    parser.add_argument("--at")
    parser.add_argument("--ca")
    parser.add_argument("--keys")
    parser.add_argument("--others", default="batch:2")
    parser.add_argument("--model", default="mistral-small-4")
    parser.add_argument("--context", type=int, default=262_144)
    parser.add_argument("--people", default="1")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", default="4,4,8")
    parser.add_argument("--settle", type=float, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--metrics")
    parser.add_argument("--out")
    parser.add_argument("--long", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.at:
        address, _, port = options.at.rpartition(":")
        there = Endpoint(address, int(port), options.ca, "", options.model, options.context)
        asyncio.run(beside(there, options))
        return
    python = options.python
    with served(python, BLOCK) as there:
        asyncio.run(side_by_side(there))
    for title, own in (("one priority, no limits", {}), ("the other key is low", {"priority": "low"})):
        block = {"access": {**BLOCK["access"], "keys": ["team-a", {"name": BATCH["name"], **own}]}}
        with served(python, block) as there:
            asyncio.run(crowded(there, title))


if __name__ == "__main__":
    main()
