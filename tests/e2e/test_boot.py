"""A reboot of the host, with both kinds of volume: the model is served again without anybody."""

import json
import socket
import threading
from collections import Counter

import pytest
from harness import REGIONS, answers, wait_for

BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d ' ' -f 22 /proc/1/stat"
SERVED_WITHIN_S = 120
LABEL = "e2label /dev/vdb"
FAULTS = {
    # A disk that appears late is one without its label.
    "block": (f"{LABEL} > /root/label; {LABEL} other", "models.mount", f"{LABEL} $(cat /root/label)"),
    "share": (
        "fallocate -l $((($(stat -fc %a /models) - 256) * $(stat -fc %S /models))) /models/filler",
        "vllm-preflight",
        "rm /models/filler",
    ),
}
"""By kind of volume: what breaks the boot, the unit that fails, and what repairs it."""


class Connections:
    """New connections to the gateway until the block ends, 20 a second, as clients make them."""

    def __init__(self, address: str):
        self.address, self.outcomes = address, Counter()
        self._over = threading.Event()

    def __enter__(self):
        self._running = [threading.Thread(target=self._run)]
        self._running[0].start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for one in self._running:
            one.join()

    def _run(self):
        while not self._over.wait(0.05):
            self._running.append(threading.Thread(target=self._connect))
            self._running[-1].start()

    def _connect(self):
        try:
            socket.create_connection((self.address, 443), timeout=10).close()
            outcome = "accepted"
        except OSError as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1


def reboot(project) -> None:
    before = project.on_host(BOOT)
    project.on_host("systemd-run -q --on-active=0.1 systemctl reboot")
    wait_for(lambda: project.on_host(BOOT, check=False) not in {"", before}, 120, "boot")


@pytest.mark.parametrize("kind", ["block", pytest.param("share", marks=pytest.mark.all)])
def test_a_reboot_ends_in_a_served_model(projects, tmp_path, kind):
    project = projects("fake", region=REGIONS[kind])
    project.up()
    volume = project.on_host("findmnt -no SOURCE /models")
    with Connections(project.machine()[0]["address"]) as made:
        project.on_host("systemctl kill --signal=KILL haproxy")
        wait_for(
            lambda: project.on_host("systemctl show -P NRestarts haproxy").strip() == "1",
            30,
            "restart of the gateway",
        )
        reboot(project)
        wait_for(lambda: answers(project, tmp_path), SERVED_WITHIN_S, "answered chat")
    assert made.outcomes["accepted"] > made.outcomes.total() / 2, made.outcomes
    assert made.outcomes["ConnectionRefusedError"] == 0, made.outcomes
    assert project.on_host("findmnt -no SOURCE /models") == volume
    assert set(project.changes()) == {"same"}

    # What fails at boot is tried again, until its cause is gone.
    damage, unit, repair = FAULTS[kind]
    project.on_host(damage)
    reboot(project)
    wait_for(
        lambda: project.on_host(f"systemctl is-failed {unit}", check=False).strip() == "failed", 60, "failure"
    )
    assert project.on_host("systemctl is-active vllm || true").strip() == "inactive"
    project.on_host(repair)
    wait_for(lambda: answers(project, tmp_path), SERVED_WITHIN_S, "answered chat")
    assert "vllm.service has not started since the boot" in project.on_host(
        "journalctl -o cat -u vllm-canary"
    )
    assert json.loads(project.on_host("cat /var/lib/pulumi-vllm/canary.json"))["memory"]["restarts"] == []
    assert set(project.changes()) == {"same"}
