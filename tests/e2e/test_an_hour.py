"""An hour of load at the limit, of prompts of full length, and of idleness: nothing restarts the engine."""

import asyncio
import json
import ssl
import time
from collections import Counter

import aiohttp
import pytest

HOUR_S = 3600
CONCURRENCY = 4
# The fake engine's speed. An answer takes 60 s, and a prompt of full length 40 s, in steps of 6 s.
SPEED = {"token_ms": 250, "prompt_tokens_per_s": 50, "prompt_chunk": 300}
ANSWER_TOKENS, FULL_PROMPT = 240, "word " * 1590  # 1,996 of 2,048 tokens
# The canary runs every 30 s, and for up to a minute and a half where it waits for its turn.
FEWEST_RUNS = {"limit": HOUR_S // 120, "full prompts": HOUR_S // 120, "idle": HOUR_S // 45}
STARTED = "systemctl show -P ExecMainStartTimestampMonotonic -P NRestarts vllm haproxy"


async def one_client(session, outputs, body: dict, statuses: Counter, end: float) -> None:
    """Ask again and again, as a client does that waits after a 503."""
    while time.monotonic() < end:
        try:
            async with session.post(f"{outputs['endpoint']}/completions", json=body) as answer:
                await answer.read()
                statuses[answer.status] += 1
                pause_s = 1.0 if answer.status == 503 else 0.0
        except aiohttp.ClientError as error:
            statuses[type(error).__name__] += 1
            pause_s = 1.0
        await asyncio.sleep(pause_s)


async def health(session, outputs, statuses: Counter, end: float) -> None:
    """Ask the gateway once a minute whether a token came."""
    while time.monotonic() < end:
        async with session.get(outputs["endpoint"].removesuffix("/v1") + "/healthz") as answer:
            statuses[f"healthz {answer.status}", (await answer.json())["status"]] += 1
        await asyncio.sleep(60)


async def load(outputs, clients: int, body: dict, end: float) -> Counter:
    statuses: Counter = Counter()
    context = ssl.create_default_context(cadata=outputs["ca_certificate"])
    key = {"Authorization": f"Bearer {outputs['api_key']}"}
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    limit = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, headers=key, timeout=limit) as session:
        await asyncio.gather(
            health(session, outputs, statuses, end),
            *(one_client(session, outputs, body, statuses, end) for _ in range(clients)),
        )
    return statuses


@pytest.mark.all
def test_an_hour_without_a_restart(projects):
    short = {"prompt": "Hello", "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
    full = {"prompt": FULL_PROMPT, "max_tokens": 8}
    cases = {"limit": (3 * CONCURRENCY, short), "full prompts": (CONCURRENCY, full), "idle": (0, short)}
    engine = {"engine": {"flags": {"additional-config": SPEED}}}
    served = {name: projects("fake", concurrency=CONCURRENCY) for name in cases}
    before = {}
    for name, project in served.items():
        project.write(project.block | engine)
        project.up()
        before[name] = project.on_host(STARTED)
    outputs = {name: project.outputs() for name, project in served.items()}

    async def hour() -> dict[str, Counter]:
        end = time.monotonic() + HOUR_S
        loads = (
            load(outputs[name], clients, body | {"model": outputs[name]["model"]}, end)
            for name, (clients, body) in cases.items()
        )
        return dict(zip(cases, await asyncio.gather(*loads), strict=True))

    statuses = asyncio.run(hour())
    found = {}
    for name, project in served.items():
        canary = json.loads(project.on_host("cat /var/lib/pulumi-vllm/canary.json"))
        journal = project.on_host("journalctl -u vllm -o cat --no-pager")
        runs = project.on_host("journalctl -u vllm-canary -o cat --no-pager | grep -c ^Finished").strip()
        found[name] = {
            "answers": {str(status): count for status, count in statuses[name].items()},
            "same process": project.on_host(STARTED) == before[name],
            "restarts by the canary": canary["memory"]["restarts"],
            "wrong answers": canary["memory"]["wrong"],
            "dumps": journal.count("Fatal Python error"),
            "canary": canary["engine"],
            "runs": int(runs),
            "preview": project.changes(),
        }
    print(json.dumps(found, indent=1))  # noqa: T201
    for name, one in found.items():
        assert one["same process"], found
        assert (one["restarts by the canary"], one["wrong answers"], one["dumps"]) == ([], [], 0), found
        assert one["canary"] in {"answers", "busy"}, found
        assert one["runs"] >= FEWEST_RUNS[name], found
        assert set(one["preview"]) == {"same"}, found
        healthy = sum(count for what, count in statuses[name].items() if what == ("healthz 200", "ok"))
        assert healthy >= HOUR_S / 60 * 0.9, found
        failed = {what for what in statuses[name] if what not in {200, 503, ("healthz 200", "ok")}}
        assert failed == set(), found
    assert statuses["limit"][503] > HOUR_S / 30, "the queue was never full"
    assert statuses["limit"][200] > HOUR_S / 30, "the clients got few answers"
    assert statuses["full prompts"][200] >= HOUR_S / 45, "the prompts took too long"
    assert found["idle"]["canary"] == "answers"
