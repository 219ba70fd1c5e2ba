"""Running a oneshot unit on a host, over lost connections and restarts."""

import json

import pytest
from pulumi_vllm.host.errors import Unreachable
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.lifecycle import units
from pulumi_vllm.provider.lifecycle.units import WEIGHTS, describe, run_unit
from pulumi_vllm.provider.plugin.errors import UserError

UNIT = "vllm-weights.service"
RECORD = {
    "phase": "downloading",
    "files_done": 3,
    "files": 15,
    "bytes_done": 41_200_000_000,
    "bytes": 119_300_000_000,
    "rate_bytes_s": 1_012_400_000.0,
    "eta_s": 77.2,
    "error": None,
}


def test_progress_shows_files_bytes_rate_and_time_left():
    assert describe(UNIT, RECORD) == "downloading, 3/15 files, 41.2/119.3 GB, 1012.4 MB/s, 77 s left"


def test_a_small_model_is_shown_in_mb_and_an_unknown_rate_is_left_out():
    small = RECORD | {"bytes": 12_400_000, "bytes_done": 600_000, "rate_bytes_s": 0.0, "eta_s": None}
    assert describe(UNIT, small) == "downloading, 3/15 files, 0.6/12.4 MB"


def test_progress_before_the_first_record_and_between_two_attempts():
    assert describe(UNIT, {}) == "waiting for vllm-weights.service"
    assert describe(UNIT, {"error": "status 503"}) == "vllm-weights.service tries again: status 503"


class Call:
    """A request that records what it reports, and whose pauses take no time."""

    name = "server-weights"

    def __init__(self):
        self.lines = []

    async def progress(self, line):
        self.lines.append(line)

    info = progress

    async def sleep(self, _seconds):
        return


class Host:
    """A host on which the unit has these states, one after the other; an exception stands for a lost connection."""

    def __init__(self, *states):
        self.states, self.started, self.boot = list(states), [], "boot-1"

    async def run(self, script, **_):
        if "journalctl" in script:
            return Result("first line\ntoken=abcdef123456\n", "", 0)
        if "ActiveState" not in script:
            self.started.append("restart" if "systemctl restart" in script else "start")
            return Result(f"{self.boot}\n", "", 0)
        state = self.states.pop(0)
        if isinstance(state, Exception):
            raise state
        active, job, record, *boot = state
        self.boot = boot[0] if boot else self.boot
        return Result(f"{active}\n{job}\n{self.boot}\n{json.dumps(record) if record else ''}", "", 0)


@pytest.fixture
def run(monkeypatch):
    async def start(call, *states, restart=False):
        host = Host(*states)

        async def connect_host(*_):
            return host

        monkeypatch.setattr(units, "connect_host", connect_host)
        record = await run_unit(call, {}, WEIGHTS, restart=restart)
        return record, host.started

    return start


async def test_a_unit_is_followed_to_its_end(run):
    call, done = Call(), RECORD | {"files_done": 15}
    states = [("inactive", "5", None), ("activating", "5", RECORD), ("active", "", done)]
    assert await run(call, *states, restart=True) == (done, ["restart"])
    assert call.lines == [
        "waiting for vllm-weights.service (0 s)",
        "downloading, 3/15 files, 41.2/119.3 GB, 1012.4 MB/s, 77 s left (0 s)",
    ]


async def test_a_state_with_a_queued_job_is_the_state_before_it(run):
    assert (await run(Call(), ("failed", "5", None), ("active", "", RECORD)))[0] == RECORD


async def test_a_failed_unit_reports_its_own_error(run):
    with pytest.raises(UserError, match=r"server-weights: vllm-weights\.service failed: the disk is full"):
        await run(Call(), ("failed", "", {"error": "the disk is full"}))


async def test_a_failed_unit_without_a_record_reports_its_journal(run):
    with pytest.raises(UserError, match=r"failed: first line \| token=\*\*\*"):
        await run(Call(), ("failed", "", None))


async def test_a_restart_of_the_machine_starts_the_unit_again(run):
    call = Call()
    states = [("activating", "5", RECORD), ("inactive", "", None, "boot-2"), ("active", "", RECORD)]
    assert await run(call, *states, restart=True) == (RECORD, ["restart", "start"])
    assert "the host was restarted; vllm-weights.service continues" in call.lines


async def test_a_lost_connection_is_waited_out(run):
    call = Call()
    assert (await run(call, Unreachable("lost"), ("active", "", RECORD)))[0] == RECORD
    assert call.lines == ["the host does not answer (0 s)"]


async def test_a_machine_that_stays_unreachable_is_an_error(run, monkeypatch):
    monkeypatch.setattr(units, "_UNREACHABLE_FOR_AT_MOST_S", -1.0)
    with pytest.raises(Unreachable, match="lost"):
        await run(Call(), Unreachable("lost"))


async def test_a_machine_that_is_lost_ends_the_wait(run, monkeypatch):
    async def lost(*_):
        raise UserError("reclaimed")

    monkeypatch.setattr(units, "check_instance_alive", lost)
    monkeypatch.setattr(units, "_CHECK_MACHINE_AFTER_S", -1.0)
    with pytest.raises(UserError, match="reclaimed"):
        await run(Call(), Unreachable("lost"))


async def test_a_unit_without_progress_is_an_error(run, monkeypatch):
    monkeypatch.setattr(units, "_STALLED_AFTER_S", -1.0)
    with pytest.raises(UserError, match="made no progress"):
        await run(Call(), ("activating", "5", RECORD))
