"""Several engines restart one after the other, or all at once where they can't serve beside each other."""

import pytest
from pulumi_vllm.host import drift
from pulumi_vllm.provider.lifecycle.readiness_check import NotReadyError
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.resources import service
from pulumi_vllm.provider.resources.service import Service
from scripted_host import SERVICE, Call, Host, readiness, start

UNITS = ("vllm@0.service", "vllm@1.service")
TWO = {**SERVICE, "engines": 2, "commandLine": "as-declared"}
PASSED = {"passed": True}


@pytest.fixture(autouse=True)
def _no_units(monkeypatch):
    """Units that finish at once."""

    async def finish(*_, **__):
        return {}

    monkeypatch.setattr(service, "run_unit", finish)


def steps(host):
    """What was done to engines and gateway, in order."""
    found = []

    def which(line):
        return line.partition("--server vllm/")[2].split()[0] if "--server" in line else "all"

    for script in host.ran:
        for line in script.splitlines():
            if "--timeout" in line:
                found.append(
                    "drain "
                    + (line.partition("--server vllm/")[2].split()[0] if "--server" in line else "all")
                )
            elif "--undo" in line:
                found.append(
                    "open "
                    + (line.partition("--server vllm/")[2].split()[0] if "--server" in line else "all")
                )
            elif line.startswith(("systemctl stop vllm@", "systemctl start --no-block vllm@")):
                found.append(line.removeprefix("systemctl "))
            elif "restart --no-block vllm-readiness" in line:
                only = script.partition('|| echo "')[0].rpartition('[ -z "')[2].partition('"')[0]
                found.append(f"check {only or 'all'}")
    return found


def states(*found):
    return "\n\n".join(found) + "\n"


async def test_each_engine_is_ready_again_before_the_next_one_stops():
    host = Host(**readiness(result=PASSED, before=states("active", "active")))
    await start(host, {**TWO, "servingDigest": "old"}, engines=2)
    each = [
        [f"drain engine{n}", f"stop {unit}", f"start --no-block {unit}", f"check {unit}", f"open engine{n}"]
        for n, unit in enumerate(UNITS)
    ]
    assert steps(host) == [*each[0], *each[1], "open all", "check all"]


@pytest.mark.parametrize(("health", "first"), [("200\n000\n", 1), ("503\n200\n", 0), ("200\n200\n", 0)])
async def test_an_engine_that_does_not_serve_comes_first(health, first):
    host = Host(**readiness(result=PASSED, before=states("active", "active")), http_code=health)
    await start(host, {**TWO, "servingDigest": "old"}, engines=2)
    stopped = [step.split()[1] for step in steps(host) if step.startswith("stop")]
    assert stopped == [UNITS[first], UNITS[1 - first]]


@pytest.mark.parametrize(
    "changed", [{"engineVersion": "0.25.0"}, {"weightsRevision": "e" * 40}, {"engines": 1}]
)
async def test_engines_that_cannot_serve_beside_each_other_restart_at_once(changed):
    host = Host(**readiness(result=PASSED, before=states("active", "active")))
    await start(host, {**TWO, "servingDigest": "old", **changed}, engines=2)
    done = steps(host)
    assert done[:2] == ["drain all", f"stop {UNITS[0]} {UNITS[1]}"]
    assert done[-2:] == ["open all", "check all"]


async def test_nothing_restarts_where_nothing_changed():
    host = Host(**readiness(result=PASSED, before=states("active", "active")))
    await start(host, TWO, engines=2)
    assert [step for step in steps(host) if step.startswith(("drain", "stop"))] == []


async def test_a_first_engine_that_fails_leaves_the_second_alone():
    failed = {"passed": False, "why": "wrong", "unit": UNITS[0]}
    host = Host(**readiness(result=failed, before=states("active", "active")))
    with pytest.raises(UserError, match="wrong") as error:
        await start(host, {**TWO, "servingDigest": "old"}, engines=2)
    assert isinstance(error.value, NotReadyError) or isinstance(error.value.__cause__, NotReadyError)
    assert not any(UNITS[1] in step or "engine1" in step for step in steps(host))
    assert "open all" in steps(host)


async def test_a_preview_says_how_engines_restart():
    new, call = dict(TWO), Call(Host())
    await Service().check(call, new, None)
    await Service().preview_update(call, {**new, "servingDigest": "old"}, new)
    (line,) = call.lines
    assert "restarts the engines one after the other" in line
    await Service().preview_update(call, {**new, "commandLine": drift.NOT_AS_DECLARED}, new)
    assert "restarts the engine that differs. Requests go to the others" in call.lines.pop()
    assert set(new["units"]) >= set(UNITS)
    assert "vllm.service" not in new["units"]


def differing(monkeypatch, *engines):
    """Let the first comparison find that these engines were started with other files; "" stands for all."""
    found = [
        [drift.Difference("process", "x", "y", restarts_engine=True, engine=engine) for engine in engines]
    ]
    monkeypatch.setattr(service, "_differences_in", lambda *_: found.pop() if found else [])


OBSERVED = {"differences": {"process": "x"}}


@pytest.mark.parametrize(
    ("engines", "restarted"),
    [((UNITS[1],), [UNITS[1]]), ((UNITS[0], UNITS[0]), [UNITS[0]]), ((UNITS[1], ""), list(UNITS))],
)
async def test_an_engine_that_alone_differs_is_the_only_one_that_restarts(monkeypatch, engines, restarted):
    differing(monkeypatch, *engines)
    host = Host(**readiness(result=PASSED, before=states("active", "active")))
    await start(host, {**TWO, **OBSERVED}, engines=2)
    assert [step.removeprefix("stop ") for step in steps(host) if step.startswith("stop")] == restarted


async def test_an_engine_that_is_down_starts_beside_one_that_differs(monkeypatch):
    differing(monkeypatch, UNITS[1])
    host = Host(**readiness(result=PASSED, before=states("inactive", "active")), http_code="000\n200\n")
    await start(host, {**TWO, **OBSERVED}, engines=2)
    started = [step.split()[-1] for step in steps(host) if step.startswith("start")]
    assert started == list(UNITS)


async def test_a_gateway_that_is_down_starts_before_the_first_engine_restarts(monkeypatch):
    """A rolling restart left it down, and the readiness check waited for it in vain."""
    differing(monkeypatch, UNITS[1])
    host = Host(**readiness(result=PASSED, before=states("active", "active")))
    await start(host, {**TWO, **OBSERVED}, engines=2)
    lines = [line for script in host.ran for line in script.splitlines()]
    assert lines.index("systemctl start haproxy.service || true") < lines.index(f"systemctl stop {UNITS[1]}")
    assert any("enable -q --now vllm-canary.timer" in line for line in lines)


def command_lines(*argv):
    every = [(UNITS[number], words) for number, words in enumerate(argv)]
    units = {
        unit: {"ActiveState": "active", "MainPID": "7", "argv": words, "declared": "vllm serve"}
        for unit, words in every
    }
    return {"units": units, "engine_units": list(UNITS)}


@pytest.mark.parametrize(
    ("facts", "restarted"),
    [
        (command_lines(["vllm", "serve"], ["vllm", "serve", "--x"]), [UNITS[1]]),
        (
            command_lines(["vllm", "serve"], ["vllm", "serve"]),
            list(UNITS),
        ),  # it isn't known any more which it was
    ],
)
async def test_an_engine_with_other_arguments_is_the_only_one_that_restarts(monkeypatch, facts, restarted):
    monkeypatch.setattr(service, "_differences_in", lambda *_: [])
    host = Host(facts, **readiness(result=PASSED, before=states("active", "active")))
    await start(host, {**TWO, "commandLine": drift.NOT_AS_DECLARED}, engines=2)
    assert [step.removeprefix("stop ") for step in steps(host) if step.startswith("stop")] == restarted
