"""Two engines on one machine behind one gateway, on a host with real systemd and HAProxy."""

import asyncio
import contextlib
import functools
import json
import re
import ssl
import time

import aiohttp
import pytest
from harness import wait_for

UNITS = ("vllm@0.service", "vllm@1.service")
COUNTED = "vllm:prompt_tokens_total"
HITS = "vllm:prefix_cache_hits_total"


def invocations(project) -> list[str]:
    return project.on_host(f"systemctl show -P InvocationID {' '.join(UNITS)}").split()


def counters(project, name: str) -> list[float]:
    """A counter of each engine, by vLLM itself."""
    shown = project.on_host(
        "for port in 8000 8001; do curl -sf http://127.0.0.1:$port/metrics; echo; echo ---; done"
    )
    return [
        sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))
        for text in shown.split("---")[:2]
    ]


@contextlib.asynccontextmanager
async def session(outputs):
    context = ssl.create_default_context(cadata=outputs["ca_certificate"])
    key = {"Authorization": f"Bearer {outputs['api_key']}"}
    limit = aiohttp.ClientTimeout(total=240)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers=key, timeout=limit) as http:
        yield http
    # aiohttp does not wait until its connections have said goodbye over TLS.
    await asyncio.sleep(0.5)


async def chat(http, outputs, messages, **more) -> tuple[int, str]:
    body = {"model": outputs["model"], "messages": messages, "max_tokens": 8, "temperature": 0, **more}
    async with http.post(f"{outputs['endpoint']}/chat/completions", json=body) as answer:
        text = await answer.text()
        return answer.status, json.loads(text)["choices"][0]["message"][
            "content"
        ] if answer.status == 200 else text


async def ten_turns(outputs) -> None:
    async with session(outputs) as http:
        messages = [
            {"role": "system", "content": "You are brief. " * 20},
            {"role": "user", "content": "How are you?"},
        ]
        for turn in range(10):
            status, content = await chat(http, outputs, messages)
            assert status == 200, content
            messages += [
                {"role": "assistant", "content": content},
                {"role": "user", "content": f"And what about {turn}?"},
            ]


def a_conversation_stays_on_one_engine(project, outputs, counter: str) -> None:
    project.on_host("systemctl stop vllm-canary.timer vllm-canary.service")  # it asks both
    before = counters(project, counter)
    asyncio.run(ten_turns(outputs))
    after = counters(project, counter)
    project.on_host("systemctl start vllm-canary.timer")
    assert sorted(more > 0 for more in map(float.__sub__, after, before)) == [False, True]


async def stream(http, outputs, name: str, tokens: int, started: list[str]) -> str:
    """How a stream of a named conversation ends: finished, or cut."""
    body = {
        "model": outputs["model"],
        "prompt": "Hello",
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    try:
        async with http.post(
            f"{outputs['endpoint']}/completions", json=body, headers={"X-Session-Id": name}
        ) as answer:
            assert answer.status == 200, await answer.text()
            started.append(name)
            text = await answer.text()
    except aiohttp.ClientError:
        return "cut"
    return "finished" if text.rstrip().endswith("data: [DONE]") else "cut"


async def streams_over_a_kill(project, outputs, tokens: int) -> tuple[list[str], list[int], int]:
    """Eight streams, of which the engine 0 is killed. Returns how they end, and how many engine 0 had."""
    async with session(outputs) as http:
        started: list[str] = []
        running = [asyncio.create_task(stream(http, outputs, f"kill-{n}", tokens, started)) for n in range(8)]
        async with asyncio.timeout(60):
            while len(started) < len(running):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        shown = await asyncio.to_thread(project.on_host, SHOW_AND_KILL)
        of_killed = int(shown.split()[-1])
        afterwards = [(await chat(http, outputs, [{"role": "user", "content": f"{n}"}]))[0] for n in range(6)]
        return [await one for one in running], afterwards, of_killed


SHOW_AND_KILL = """
python3 - <<'PROGRAM'
import csv, socket
with socket.socket(socket.AF_UNIX) as link:
    link.connect("/run/pulumi-vllm-gateway/admin.sock")
    link.sendall(b"show stat vllm 4 -1\\n")
    text = b"".join(iter(lambda: link.recv(65536), b"")).decode()
print(next(row["scur"] for row in csv.DictReader(text.removeprefix("# ").splitlines()) if row["svname"] == "engine0"))
PROGRAM
systemctl kill --signal=KILL vllm@0.service
# What a dying process still accepts ends with it.
while ss -ltn | grep -q '127.0.0.1:8000 '; do sleep 0.05; done
"""


def a_kill_ends_only_its_own_streams(project, outputs, back_within_s: float = 90) -> None:
    before = invocations(project)
    ends, afterwards, of_killed = asyncio.run(streams_over_a_kill(project, outputs, 1200))
    assert 0 < of_killed < len(ends), (of_killed, ends)
    assert (ends.count("cut"), ends.count("finished")) == (of_killed, len(ends) - of_killed)
    assert afterwards == [200] * 6
    wait_for(lambda: served(project) == 2, back_within_s, "second engine")
    after = invocations(project)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def served(project) -> int:
    shown = project.on_host("curl -sk https://127.0.0.1/healthz", check=False)
    return int(json.loads(shown).get("engines", 0)) if shown.startswith("{") else 0


async def load(outputs, until: asyncio.Event, found: list[tuple[int, str]]) -> None:
    """Steady load: four clients, each with one chat after the other, each of another conversation."""

    async def one(number: int) -> None:
        count = 0
        async with session(outputs) as http:
            while not until.is_set():
                count += 1
                try:
                    found.append(
                        await chat(http, outputs, [{"role": "user", "content": f"{number}/{count}"}])
                    )
                except aiohttp.ClientError as error:
                    found.append((0, repr(error)))

    await asyncio.gather(*(one(number) for number in range(4)))


async def under_load(work, outputs) -> list[tuple[int, str]]:
    until, found = asyncio.Event(), []
    task = asyncio.create_task(load(outputs, until, found))
    try:
        await asyncio.to_thread(work)
    finally:
        until.set()
        await task
    return found


def a_rolling_restart_loses_no_request(project, outputs, context: int, timeout: float = 900) -> None:
    before = invocations(project)
    project.write(project.block | {"context": context})
    shown = project.pulumi("preview", "--diff").stdout
    assert "restarts the engines one after the other" in shown
    found = asyncio.run(under_load(functools.partial(project.up, timeout=timeout), outputs))
    assert len(found) > 50
    assert [one for one in found if one[0] != 200] == []
    assert not set(before) & set(invocations(project))
    assert set(project.changes()) == {"same"}


async def held_engine(outputs, ends: list[str], started: list[str]) -> None:
    """Streams that both engines still serve when one of them is restarted."""
    async with session(outputs) as http:
        names = [f"held-{number}" for number in range(8)]
        ends += await asyncio.gather(*(stream(http, outputs, name, 400, started) for name in names))


def a_restart_by_hand_loses_no_request(project, outputs) -> None:
    """vLLM answers new requests with 500 while the running ones of an engine that stops still end."""
    ends, started = list[str](), list[str]()

    async def both() -> list[tuple[int, str]]:
        holding = asyncio.create_task(held_engine(outputs, ends, started))
        async with asyncio.timeout(60):
            while len(started) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        found = await under_load(lambda: project.on_host("systemctl restart vllm@1.service"), outputs)
        await holding
        return found

    found = asyncio.run(both())
    assert len(found) > 20
    assert [one for one in found if one[0] != 200] == []
    assert ends == ["finished"] * 8
    wait_for(lambda: served(project) == 2, 90, "second engine")


def drift_of_one_engine_restarts_it_alone(project) -> None:
    """The gateway is down as well, and a rolling restart needs it."""
    folder = "/etc/systemd/system/vllm@1.service.d"
    project.on_host(
        f"mkdir -p {folder}; printf '[Service]\\nEnvironment=X=1\\n' > {folder}/mine.conf; systemctl daemon-reload; "
        "systemctl restart vllm@1.service; systemctl stop haproxy.service vllm-canary.timer"
    )
    before = invocations(project)
    project.up()
    after = invocations(project)
    assert (after[0] == before[0], after[1] != before[1]) == (True, True)
    assert (served(project), set(project.changes())) == (2, {"same"})


def test_two_engines_share_a_machine(projects):
    project = projects("fake", machine={"engines": 2}, concurrency=32, drain_timeout_s=40)
    project.up()
    project.machine = functools.cache(project.machine)  # exporting the state takes as long as a stream
    outputs = project.outputs()
    assert set(project.changes()) == {"same"}
    assert served(project) == 2
    a_conversation_stays_on_one_engine(project, outputs, COUNTED)
    a_kill_ends_only_its_own_streams(project, outputs)
    a_rolling_restart_loses_no_request(project, outputs, 1024)
    a_restart_by_hand_loses_no_request(project, outputs)
    drift_of_one_engine_restarts_it_alone(project)
    project.on_host(
        "systemctl stop vllm@1.service; /usr/local/lib/pulumi-vllm/drain --server vllm/engine0 --close; "
        # It comes before the template of both.
        "sed 's/^ExecStart=/&env /' /etc/systemd/system/vllm@.service > /etc/systemd/system/vllm@1.service; "
        "cp /etc/pulumi-vllm/vllm-1.env /etc/pulumi-vllm/vllm-2.env; systemctl enable --now vllm@2.service"
    )
    shown = (
        project.cli("drift", "local").stdout if project.stack == "local" else project.pulumi("preview").stdout
    )
    assert "vllm@1.service is inactive" in shown
    assert "engine0 is DRAIN" in shown
    assert "/etc/systemd/system/vllm@1.service" in shown
    assert "vllm@2.service runs or starts at boot, and is not declared" in shown
    project.up()
    assert (served(project), set(project.changes())) == (2, {"same"})
    project.write(project.block | {"machine": project.block["machine"] | {"engines": 1}})
    project.up()
    assert project.on_host(
        "systemctl is-active vllm.service vllm@0.service vllm@1.service || true"
    ).split() == [
        "active",
        "inactive",
        "inactive",
    ]
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_the_canary_ends_only_the_sick_engine(projects):
    project = projects("fake", machine={"engines": 2})
    project.up()
    before = invocations(project)
    project.on_host("systemctl start vllm-canary; kill -STOP $(pgrep -x VLLM::EngineCor -n)")
    time.sleep(1)
    wait_for(lambda: len(set(before) & set(invocations(project))) == 1, 180, "restart of one engine")
    wait_for(lambda: served(project) == 2, 120, "second engine")
    assert len(set(before) & set(invocations(project))) == 1


@pytest.mark.all
def test_engines_that_go_leave_nothing_behind(projects):
    project = projects("fake", machine={"engines": 3}, concurrency=12)
    project.up()
    for engines in (2, 1, 2):
        project.write(project.block | {"machine": project.block["machine"] | {"engines": engines}})
        project.up()
        assert set(project.changes()) == {"same"}
        shown = project.on_host(
            "systemctl list-units --all --plain --no-legend 'vllm@*' | wc -l; "
            "ls /etc/pulumi-vllm/vllm*.env /etc/systemd/system/multi-user.target.wants/vllm*@*.service "
            "/etc/systemd/system/multi-user.target.wants/vllm.service 2>/dev/null | wc -l; "
            "ss -ltn | grep -c '127.0.0.1:800'; systemctl show -P Result vllm-rollback.service"
        )
        assert shown.split() == [
            str(engines if engines > 1 else 0),
            str(2 * engines),
            str(engines),
            "success",
        ]
    assert served(project) == 2


@pytest.mark.all
def test_two_real_engines_keep_a_conversation_in_one_cache(projects):
    project = projects("real", machine={"engines": 2}, concurrency=32, drain_timeout_s=60)
    project.up(timeout=1800)
    project.machine = functools.cache(project.machine)
    outputs = project.outputs()
    assert set(project.changes()) == {"same"}
    assert served(project) == 2
    a_conversation_stays_on_one_engine(project, outputs, HITS)
    a_kill_ends_only_its_own_streams(project, outputs, back_within_s=600)
    a_rolling_restart_loses_no_request(project, outputs, 1024, timeout=2700)
    a_conversation_stays_on_one_engine(project, outputs, HITS)
