"""Parsing facts: malformed output of a probe must not look like a healthy host."""

from __future__ import annotations

import json

import pytest
from pulumi_vllm.host.facts import Facts, FileFact
from pulumi_vllm.host.mask import mask
from pulumi_vllm.plan import engine_locks

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
}


def facts(**more):
    return Facts.parse(json.dumps({"probe": 1, **more}))


def file(text, mode="0644", owner="root:root"):
    return {"text": text, "mode": mode, "owner": owner, "sha256": "0"}


def test_an_empty_probe_is_an_empty_host():
    host = facts()
    assert (host.files, host.units, host.manifests, host.driver) == ({}, {}, {}, None)
    assert (host.gpus, host.stamp) == ((), ())
    assert host.versions() == {}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"probe": 2}', "{"])
def test_other_text_than_a_probe_output_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 (json's own, or ours)
        Facts.parse(text)


def test_every_fact_of_a_probe_is_parsed():
    host = facts(
        boot_id="b-1",
        os={"PRETTY_NAME": "Ubuntu 24.04 LTS"},
        kernel="6.8",
        python="3.12.3",
        engine="0.26.0",
        files={"/a": file("x"), "/b": None},
        units={
            "vllm.service": VLLM,
            "haproxy.service": {"LoadState": "not-found", "ActiveState": "inactive"},
        },
        mounts={"/models": {"source": "tag", "type": "virtiofs", "writable": True}},
        stamp=["a" * 64],
        gpus=[["NVIDIA H200", "143771", "GPU-1", "570.1"], ["NVIDIA H200", "143771", "GPU-2", "570.1"]],
        readiness={"passed": True},
        listening=[["0.0.0.0", 443], ["127.0.0.1", 8000], ["::", 22], ["::1", 8405]],
        disk_free={"/": 1},
    )
    assert host.files == {"/a": FileFact("x", "0644", "root:root", "0"), "/b": None}
    assert host.units["vllm.service"].main_pid == 77
    assert host.units["haproxy.service"].active == "missing"
    assert host.mounts["/models"].type == "virtiofs"
    assert host.listening == (("0.0.0.0", 443), ("127.0.0.1", 8000), ("::", 22), ("::1", 8405))
    assert host.versions() == {
        "vllm": "0.26.0",
        "driver": "570.1",
        "gpus": ["NVIDIA H200", "NVIDIA H200"],
        "os": "Ubuntu 24.04 LTS",
        "kernel": "6.8",
        "python": "3.12.3",
    }


def test_the_text_of_a_file_is_in_no_repr():
    assert "hunter2" not in repr(facts(files={"/s": file("hunter2")}))


def test_missing_and_truncated_weights_are_damaged():
    item = {
        "repository": "o/n",
        "revision": "f" * 40,
        "sha256": "0" * 64,
        "sizes": {"good": 5, "short": 4, "gone": None},
        "listed": {"good": 5, "short": 5, "gone": 5},
    }
    host = facts(manifests={"/models/weights/o/n/f": item})
    assert host.manifests["/models/weights/o/n/f"].damaged == ("gone", "short")


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
        ("mallory ALL=(ALL) /bin/dump --db-password h2", "h2"),
        ("run --token 'h2'", "h2"),
        ("Environment=HF_TOKEN=a1", "a1"),
        ("Environment='DB_PASSWORD=two words' A=1", "words"),
        ('Environment="AWS_SECRET_ACCESS_KEY=x y"', "x y"),
        ("export WANDB_API_KEY='q 1'", "q 1"),
        ("ExecStart=/bin/serve \\\n    --api-key \\\n    h2", "h2"),
    ],
)
def test_secrets_are_masked(text, secret):
    assert secret not in mask(text, "planted")


def test_packages_with_their_versions_are_no_secrets():
    locks = engine_locks.every()
    assert any("tiktoken==" in lock for lock in locks)
    assert [mask(lock) for lock in locks] == locks
    assert mask("token==0.14.0 y") == "token==0.14.0 y"
    assert "1.2.3abc" not in mask("password=1.2.3abc")


def test_a_word_in_the_next_line_is_no_key():
    text = "hdr WWW-Authenticate Bearer\nhttp-error status 404"
    assert mask(text) == text


def test_text_without_secrets_is_unchanged():
    text = "--tokenizer-mode mistral; vllm[77]: 512 tokens generated; tokenizer: fast; see https://docs.example/key"
    assert mask(text) == text
