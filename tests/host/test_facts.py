"""From probe text to facts and differences; nothing odd in it may pass for a healthy host."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.host.facts import Difference, Facts, FileFact, differences
from pulumi_vllm.host.mask import mask

VLLM = {
    "Id": "vllm.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "NRestarts": "2",
    "MainPID": "77",
    "NeedDaemonReload": "no",
    "UnitFileState": "enabled",
    "argv": ["/opt/vllm/bin/python", "-m", "vllm", "--limit", '{"image": 1}'],
    "declared": '/opt/vllm/bin/python -m vllm --limit "{\\"image\\": 1}"',
    "since": 1000.0,
    "newest": 900.0,
}
LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n"]), max_size=8).map("".join)


@dataclass(frozen=True)
class Wanted:
    path: str
    text: str
    mode: str = "0644"
    owner: str = "root:root"


def facts(**more):
    return Facts.parse(json.dumps({"probe": 1, **more}))


def found(text, mode="0644", owner="root:root"):
    return {"text": text, "mode": mode, "owner": owner, "mtime": 1.0}


def test_an_empty_probe_is_an_empty_host():
    host = facts()
    assert (host.files, host.units, host.driver, host.gpus, host.manifest, host.stamp) == (
        {},
        {},
        None,
        (),
        None,
        (),
    )
    assert host.versions() == {}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"probe": 2}', "{"])
def test_what_is_no_probe_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 (json's own, or ours)
        Facts.parse(text)


def test_everything_in_a_probe_is_read():
    host = facts(
        boot_id="b-1",
        os={"PRETTY_NAME": "Ubuntu 24.04 LTS"},
        kernel="6.8",
        python="3.12.3",
        engine="0.26.0",
        files={"/a": found("x"), "/b": None},
        units={
            "vllm.service": VLLM,
            "haproxy.service": {"LoadState": "not-found", "ActiveState": "inactive"},
        },
        mounts={"/models": {"source": "tag", "type": "virtiofs", "options": "rw"}},
        stamp=["a" * 64],
        gpus=[["NVIDIA H200", "143771", "GPU-1", "570.1"], ["NVIDIA H200", "143771", "GPU-2", "570.1"]],
        readiness={"passed": True},
        listening=[["0.0.0.0", 443], ["127.0.0.1", 8000], ["::", 22], ["::1", 8405]],
        disk_free={"/": 1},
    )
    assert host.files == {"/a": FileFact("x", "0644", "root:root"), "/b": None}
    assert (host.units["vllm.service"].restarts, host.units["vllm.service"].main_pid) == (2, 77)
    assert host.units["haproxy.service"].active == "missing"
    assert host.mounts["/models"].type == "virtiofs"
    assert host.open_ports() == (22, 443)
    assert host.versions() == {
        "vllm": "0.26.0",
        "driver": "570.1",
        "gpus": ["NVIDIA H200", "NVIDIA H200"],
        "os": "Ubuntu 24.04 LTS",
        "kernel": "6.8",
        "python": "3.12.3",
    }


def test_no_repr_shows_a_files_text():
    assert "hunter2" not in repr(facts(files={"/s": found("hunter2")}))


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"argv": ["/opt/vllm/bin/python", "-m", "vllm"]}, False),
        ({"declared": "/opt/vllm/bin/python -m vllm --more"}, False),
        ({"argv": []}, True),
        ({"argv": ["VLLM::APIServer"]}, True),
        ({"declared": ""}, True),
    ],
)
def test_a_process_is_held_against_its_unit(change, matches):
    assert facts(units={"vllm.service": VLLM | change}).process_matches("vllm.service") is matches
    assert facts().process_matches("vllm.service")


def test_a_file_newer_than_the_process_makes_it_stale():
    assert not facts(units={"vllm.service": VLLM}).units["vllm.service"].stale
    assert facts(units={"vllm.service": VLLM | {"newest": 1002.0}}).units["vllm.service"].stale
    assert (
        not facts(units={"vllm.service": VLLM | {"newest": 1002.0, "MainPID": "0"}})
        .units["vllm.service"]
        .stale
    )


def test_a_manifest_is_held_against_the_disk():
    item = {
        "repository": "o/n",
        "revision": "f" * 40,
        "sha256": "0" * 64,
        "sizes": {"good": 5, "short": 4, "gone": None},
        "wanted": {"good": 5, "short": 5, "gone": 5},
    }
    host = facts(manifests={"/models/weights/o/n/f": item})
    assert host.seen_by((), "/models/weights/o/n/f").manifest.damaged == ("gone", "short")
    assert host.seen_by((), "/models/weights/other").manifest is None


def test_differences_are_lines_modes_drop_ins_and_units():
    host = facts(
        files={"/unit": found("[Unit]\nA=1\nB=3\n"), "/mode": found("x", "0666", "vllm:vllm")},
        drop_ins={"/d/declared.conf": "x", "/d/strange.conf": "[Service]\n"},
        units={"vllm.service": VLLM | {"ActiveState": "failed"}},
    )
    wanted = [
        Wanted("/unit", "[Unit]\nA=1\nB=2\n"),
        Wanted("/mode", "x"),
        Wanted("/gone", "y"),
        Wanted("/d/declared.conf", "x"),
    ]
    assert differences(wanted, host, {"vllm.service": "active", "haproxy.service": "active"}) == (
        Difference("/unit:3", "B=2\n", "B=3\n"),
        Difference("/mode mode", "0644", "0666"),
        Difference("/mode owner", "root:root", "vllm:vllm"),
        Difference("/gone", "y", None),
        Difference("/d/declared.conf", "x", None),
        Difference("/d/strange.conf", None, "[Service]\n"),
        Difference("vllm.service", "active", "failed"),
        Difference("haproxy.service", "active", None),
    )


@given(LINES, LINES)
def test_no_difference_means_the_same_text(wanted, live):
    listed = differences([Wanted("/f", wanted)], facts(files={"/f": found(live)}))
    assert (not listed) == (wanted == live)


@given(LINES, LINES)
def test_differences_rebuild_the_hosts_text(wanted, live):
    lines = wanted.splitlines(keepends=True)
    shown: list[str] = []
    at = 0
    for difference in differences([Wanted("/f", wanted)], facts(files={"/f": found(live)})):
        start = int(difference.what.rpartition(":")[2]) - 1
        shown += [*lines[at:start], difference.found or ""]
        at = start + len((difference.wanted or "").splitlines())
    assert "".join([*shown, *lines[at:]]) == live


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("HF_TOKEN=hf_abcdefghij12", "abcdefghij"),
        ("key sai_pk_abcdefgh", "abcdefgh"),
        ("Authorization: Bearer qwertz123", "qwertz123"),
        ('{"api_key": "qwertz123"}', "qwertz123"),
        ("curl https://me:hunter2@hub/x", "hunter2"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n", "MHcCAQEE"),
        ("password=hunter22", "hunter22"),
        ("planted value", "planted"),
    ],
)
def test_secrets_in_words_are_masked(text, secret):
    assert secret not in mask(text, "planted")


def test_words_without_secrets_stay():
    text = "vllm[77]: 512 tokens generated; tokenizer: fast; see https://docs.example/key"
    assert mask(text) == text
