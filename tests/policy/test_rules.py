"""The rules of the policy pack: our own stacks pass, and each rule reports its violation."""

import base64
import datetime as dt
import sys
from pathlib import Path

import pytest
import yaml
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.render import cloud_init, render

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "policy"))

import rules  # noqa: E402

TODAY = dt.date(2026, 11, 26)
STACKS = sorted(ROOT.glob("stacks/Pulumi.*.yaml"))


def planned(path):
    return plan(Deployment.parse(yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]))


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_our_stacks_violate_no_rule(path):
    decided = planned(path)
    files = {file.path: file.text for file in render(decided)}
    assert list(rules.engine_port(files)) == []
    assert list(rules.no_secret(cloud_init(decided))) == []
    assert list(rules.pinned_revision({"revision": decided.revision})) == []
    assert list(rules.price_ceiling({"maxUsdPerHour": decided.deployment.machine.max_usd_per_hour}, 50)) == []


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({}, "has no maxUsdPerHour"),
        ({"maxUsdPerHour": 50.5}, "may cost $50.50/h"),
        ({"maxUsdPerHour": 50}, None),
    ],
)
def test_price_ceiling(machine, message):
    found = list(rules.price_ceiling(machine, 50))
    assert [message in one for one in found] == [True] * (message is not None)


def test_total_price_adds_the_known_prices():
    assert list(rules.total_price([7.92, None, 0.04], 7.96)) == []
    (violation,) = rules.total_price([7.92, 7.92], 10)
    assert "$15.84/h together" in violation


def test_volume_kept():
    assert list(rules.volume_kept({})) == list(rules.volume_kept({"keep": True})) == []
    assert "keep" in next(rules.volume_kept({"keep": False}))


@pytest.mark.parametrize("revision", ["main", "v1.0", "a11f36be", "A" * 40, ""])
def test_a_revision_that_can_move_is_reported(revision):
    assert "can move" in next(rules.pinned_revision({"revision": revision}))


OURS = {file.path: file.text for file in render(planned(STACKS[-1]))}[rules.FIREWALL]


def unit(*words, more="", firewall=OURS):
    return {rules.UNIT: f"[Service]\nExecStart=/x {' '.join(words)}\n{more}", rules.FIREWALL: firewall}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (unit("--port 8000"), "without --host"),
        (unit("--host 0.0.0.0"), "listens on 0.0.0.0"),
        (unit("--host=10.0.0.4"), "listens on 10.0.0.4"),
        (unit("--host \\\n  ::"), "listens on ::"),
        ({rules.UNIT: "ExecStart=/x --host 127.0.0.1"}, "every port of the machine is open"),
        (unit("--host 127.0.0.1", firewall=OURS.replace("        counter drop\n", "")), "last rule"),
        (unit("--host 127.0.0.1", firewall=""), "last rule"),
        (
            unit("--host 127.0.0.1") | {f"{rules.UNIT}.d/x.conf": "ExecStart=/x --host 0.0.0.0"},
            "x.conf: vLLM listens",
        ),
    ],
)
def test_an_engine_that_clients_can_reach_is_reported(files, message):
    (violation,) = rules.engine_port(files)
    assert message in violation


@pytest.mark.parametrize(
    "line",
    [
        "tcp dport 8000 accept",
        "tcp dport { 443, 9000 } accept",
        "ip saddr 10.0.0.0/8 tcp dport 8000 accept",
        "tcp dport 7000-9000 accept",
        "tcp dport 1-65535 accept",
        "accept",
        "ip saddr 0.0.0.0/0 accept",
        "tcp dport != 22 accept",
        "tcp dport @open accept",
        "tcp dport 443-9000 accept",
        "iif eth0 accept",
        "tcp dport 9 drop; accept",
        "tcp dport vmap { 8000 : accept, 9 : drop }",
        "jump open",
        "jump open # drop",
        "return",
        "meta skuid root th dport 53 accept",
        "meta skuid vllm tcp dport 8000 accept",
        'include "/etc/more.nft"',
    ],
)
def test_a_firewall_that_opens_more_is_reported(line):
    wider = OURS.replace('iif "lo" accept', f'iif "lo" accept\n        {line}')
    (violation,) = rules.engine_port(unit("--host 127.0.0.1", firewall=wider))
    assert repr(line) in violation
    assert "may open the engine's port" in violation


def test_a_firewall_may_drop_more():
    narrower = OURS.replace(
        'iif "lo" accept', 'iif "lo" accept\n        ip saddr { 192.0.2.0/24 } counter drop'
    )
    assert list(rules.engine_port(unit("--host 127.0.0.1", firewall=narrower))) == []


def test_an_engine_behind_its_gateway_passes():
    assert list(rules.engine_port(unit("--host 127.0.0.1 --port 8000"))) == []
    assert list(rules.engine_port({"/etc/other.conf": "--host 0.0.0.0"})) == []


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "hf_" + "a1B2" * 8,
        "sk-" + "abc123" * 5,
        "sai_pk_" + "0123abcd",
        "Authorization: Bearer abcdefgh12345678",
    ],
)
def test_a_secret_in_the_user_data_is_reported(secret):
    plain = {"writeFiles": [{"path": "/etc/x", "content": f"A={secret}\n"}]}
    packed = base64.b64encode(f"#!/bin/sh\necho {secret}\n".encode()).decode()
    for user_data in (plain, {"runcmd": [f"echo {packed} | base64 -d | sh"]}):
        (violation,) = rules.no_secret(user_data)
        assert "the user data contains" in violation
        assert secret not in violation


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({}, "no tag ttl"),
        ({"ttl": "soon"}, "not a date"),
        ({"ttl": "2026-11-25"}, "2026-11-25 has passed"),
        ({"ttl": "2027-11-26"}, "more than 30 days away"),
        ({"ttl": "2026-11-26"}, None),
        ({"ttl": "2026-12-26"}, None),
    ],
)
def test_a_stack_with_a_machine_needs_an_end_date(tags, message):
    found = list(rules.ttl(tags, TODAY, 30))
    assert [message in one for one in found] == [True] * (message is not None)
