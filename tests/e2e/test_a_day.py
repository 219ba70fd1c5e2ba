"""A day of the virtual clock with losses, crashes, hangs, wrong answers and updates at random, and without a person."""

import json
import random

import pytest
import traces
from harness import REGIONS, answers, wait_for

HOURS, TICK_MIN = 24, 10
TICKS = HOURS * 60 // TICK_MIN
# A schedule of every 20 minutes, so that a loss costs two ticks at most.
RECONCILE_EVERY = 2
EVENTS = ("loss",) * 8 + ("crash",) * 6 + ("update",) * 6 + ("wrong",) * 2 + ("hang",) * 2
PLANTED = "https://hooks.example.com/planted-9f2c"
CORE = "$(pgrep -x VLLM::EngineCor)"
BACK_WITHIN_S = 120


class Day:
    """One server, what happens to it, and what was counted."""

    def __init__(self, project, folder, chance: random.Random) -> None:
        self.project, self.folder, self.chance = project, folder, chance
        self.answered = 0
        self.false_ready: list[str] = []
        self.limit = 6000

    def answers(self) -> bool:
        return answers(self.project, self.folder)

    def must_answer(self, who: str) -> None:
        """Whoever says that it serves is held to it."""
        if not self.answers():
            self.false_ready.append(who)

    def lost(self) -> bool:
        return self.project.machine_id() not in {one["id"] for one in self.project.cloud.machines()}

    # -- what happens ----------------------------------------------------------------------------------
    def loss(self) -> None:
        machine = self.project.machine_id()
        self.project.cloud.api(f"/_sim/reclaim/{machine}", "POST")
        wait_for(self.lost, 120, "end of the machine")

    def crash(self) -> None:
        self.project.on_host(f"kill -KILL {CORE}")
        wait_for(self.answers, BACK_WITHIN_S, "chat after a crash")

    def hang(self) -> None:
        self.project.on_host(f"systemctl start vllm-canary; kill -STOP {CORE}")
        self.project.on_host("systemctl start vllm-canary", check=False)  # as its timer does
        wait_for(self.answers, BACK_WITHIN_S, "chat after a hang")

    def wrong(self) -> None:
        self.project.on_host(f"kill -USR1 {CORE}")
        self.project.on_host("for run in 1 2 3; do systemctl start vllm-canary || true; done")
        wait_for(self.answers, BACK_WITHIN_S, "chat after wrong answers")

    def update(self) -> None:
        self.limit += 1
        change = {
            "gateway": {"requests_per_minute": self.limit},
            "concurrency": self.chance.choice((4, 8, 16)),
        }
        self.project.write(self.project.block | change)
        self.project.up()
        self.must_answer("up")

    def reconcile(self) -> None:
        done = self.project.cli("reconcile", self.project.stack, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout)
        if result["action"] == "up":
            assert (result["same_volume"], result["downloaded_bytes"]) == (True, 0), result
        self.must_answer(f"reconcile ({result['because']})")


@pytest.mark.all
@pytest.mark.parametrize("kind", ["block", "share"])  # without notice of a loss, and with 60 s
def test_a_day_without_a_person(projects, tmp_path, kind):
    chance = random.Random(20261130)
    project = projects("fake", region=REGIONS[kind], machine={"billing": "spot", "fallback": "on-demand"})
    project.pulumi("config", "set", "--secret", "pulumi-vllm:notifyUrl", PLANTED)
    project.up()
    day = Day(project, tmp_path, chance)
    happens = dict(
        zip(sorted(chance.sample(range(TICKS), len(EVENTS))), chance.sample(EVENTS, len(EVENTS)), strict=True)
    )
    for tick in range(TICKS):
        if tick in happens and not day.lost():
            getattr(day, happens[tick])()
        project.cloud.pass_minutes(TICK_MIN)
        if tick % RECONCILE_EVERY == 0 and day.lost():
            day.reconcile()
        day.answered += day.answers()
    if day.lost():
        day.reconcile()

    print(f"available in {day.answered} of {TICKS} ticks")  # noqa: T201
    assert day.answered / TICKS > 0.9
    assert day.false_ready == []
    ours = {one["id"] for one in project.cloud.machines() if one["name"].startswith(f"{project.stack}-")}
    assert ours == {project.machine_id()}, "lost machines"
    verified = project.on_host("/usr/local/lib/pulumi-vllm/weights --verify 2>&1")
    assert "0.00 GB fetched" in verified, "torn weights"
    (secret,) = [project.outputs()["api_key"]]
    texts = traces.in_files(project.folder, "key", "home") | {
        "journal": project.on_host("journalctl -o cat --no-pager").encode(),
        "cloud": json.dumps(project.cloud.api("/_sim/state")).encode(),
    }
    assert traces.leaks({"API key": secret, "address": PLANTED}, texts) == []
    assert set(project.changes()) == {"same"}
