"""Drift: differences between declared and observed state."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.host import drift
from pulumi_vllm.host.facts import Facts, ManifestFact

VLLM = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "MainPID": "77",
    "argv": ["/opt/vllm/bin/python", "-m", "vllm", "--limit", '{"image": 1}'],
    "declared": '/opt/vllm/bin/python -m vllm --limit "{\\"image\\": 1}"',
}
TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "\n"]), max_size=6).map("".join)


def facts(**more):
    return Facts.parse(json.dumps({"probe": 1, **more}))


def file(text, mode="0644", owner="root:root"):
    return {"text": text, "mode": mode, "owner": owner, "sha256": "0"}


def files(declared, host, owned=None):
    texts = {path: text for path, (text, _) in declared.items()}
    attributes = {path: mode for path, (_, mode) in declared.items()}
    return drift.files(texts, attributes, owned=owned or texts, facts=host, redact=lambda _, fact: fact.text)


def test_files_differ_in_text_mode_or_owner():
    host = facts(
        files={
            "/same": file("x"),
            "/text": file("y"),
            "/mode": file("x", "0666"),
            "/owner": file("x", owner="vllm:vllm"),
            "/gone": None,
        }
    )
    declared = dict.fromkeys(("/same", "/text", "/mode", "/owner", "/gone"), ("x", "0644 root:root"))
    observed = files(declared, host)
    assert observed.changed == ("/gone", "/text", "/mode", "/owner")
    assert observed.texts == {"/same": "x", "/text": "y", "/mode": "x", "/owner": "x"}
    assert observed.attributes["/mode"] == "0666 root:root"
    assert observed.attributes["/owner"] == "0644 vllm:vllm"


def test_an_undeclared_drop_in_is_drift():
    host = facts(drop_ins={"/d/declared.conf": file("x"), "/d/strange.conf": file("[Service]\n")})
    observed = files({"/d/declared.conf": ("x", "0644 root:root")}, host)
    assert observed.texts == {"/d/strange.conf": "[Service]\n"}
    assert observed.changed == ("/d/declared.conf", "/d/strange.conf")


def test_a_drop_in_that_we_own_is_read_as_a_file():
    host = facts(files={"/d/ours.conf": file("x")}, drop_ins={"/d/ours.conf": file("x")})
    observed = files({"/d/ours.conf": ("x", "0644 root:root")}, host)
    assert (observed.texts, observed.changed) == ({"/d/ours.conf": "x"}, ())


def test_a_file_that_is_owned_but_no_longer_declared_is_drift():
    host = facts(files={"/old": file("x")})
    assert files({}, host, owned=["/old"]).changed == ("/old",)


def test_texts_are_compared_after_redaction():
    host = facts(files={"/f": file("key=secret")})
    observed = drift.files(
        {"/f": "key=…"},
        {"/f": "0644 root:root"},
        owned=["/f"],
        facts=host,
        redact=lambda _, fact: fact.text.replace("secret", "…"),
    )
    assert (observed.texts, observed.changed) == ({"/f": "key=…"}, ())


@given(TEXTS, TEXTS)
def test_no_drift_means_the_same_text(declared, live):
    observed = files({"/f": (declared, "0644 root:root")}, facts(files={"/f": file(live)}))
    assert (not observed.changed) == (declared == live)
    assert observed.texts == {"/f": live}


MODELS = {"source": "/dev/vdb", "type": "ext4", "writable": True}
OURS = {"volume": {"volume": "name"}}


@pytest.mark.parametrize(
    ("host", "sentences"),
    [
        ({"mounts": {"/models": MODELS}, **OURS}, []),
        ({}, []),  # the input `mounted` shows it
        (
            {"mounts": {"/models": MODELS | {"writable": False}}, **OURS},
            ["/models is mounted read-only, declared writable; `pulumi up` mounts it writable"],
        ),
        (
            {"mounts": {"/models": {"source": "tmpfs", "type": "tmpfs", "writable": True}}},
            [
                (
                    "/models is another file system (tmpfs, tmpfs), declared the volume name; `pulumi up` unmounts "
                    "nothing that is not its own; run `umount /models` on the host"
                )
            ],
        ),
    ],
)
def test_the_volume_is_told_by_its_marker(host, sentences):
    found = drift.volume(facts(**host), name="name", unit_sha256=None)
    assert [one.sentence for one in found] == sentences


def test_another_mount_unit_is_a_difference():
    unit = "/etc/systemd/system/models.mount"
    host = facts(files={unit: file("x")})
    assert drift.volume(host, name="name", unit_sha256="0") == ()
    (one,) = drift.volume(host, name="name", unit_sha256="1")
    assert one.sentence == f"{unit} has another text than declared; `pulumi up` restores it"


def units(**more):
    return drift.units(["vllm.service", "haproxy.service"], facts(units=more))


def test_active_units_are_no_drift():
    observed = units(**{"vllm.service": VLLM, "haproxy.service": {"ActiveState": "active"}})
    assert observed.states == {"vllm.service": "active", "haproxy.service": "active"}
    assert (observed.command_line, observed.problems) == (drift.AS_DECLARED, ())


def test_stopped_and_missing_units_are_drift():
    observed = units(**{"vllm.service": VLLM | {"ActiveState": "failed"}})
    assert observed.states == {"vllm.service": "failed", "haproxy.service": "missing"}
    assert observed.problems == ("haproxy.service is missing", "vllm.service is failed")


def test_a_process_with_other_arguments_is_drift():
    observed = units(
        **{"vllm.service": VLLM | {"argv": ["python", "-m"]}, "haproxy.service": {"ActiveState": "active"}}
    )
    assert observed.command_line == drift.NOT_AS_DECLARED
    assert observed.problems == ("vllm runs with other arguments than its unit",)


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
def test_a_process_is_compared_with_its_unit(change, matches):
    host = facts(units={"vllm.service": VLLM | change})
    assert drift.process_matches(host.units["vllm.service"]) is matches


@pytest.mark.parametrize(
    ("stored", "differs"),
    [("0" * 64, False), ("1" * 64, True), (None, False), ("/etc/bash.bashrc: line 7: PS1: unbound", False)],
)
def test_a_manifest_is_compared_with_the_stored_hash(stored, differs):
    fact = ManifestFact("o/n", "f" * 40, "0" * 64, ())
    assert bool(drift.manifest(fact, directory="/models/w", sha256=stored)) == differs
