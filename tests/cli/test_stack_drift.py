"""`pulumi-vllm drift`: what it reads from a preview, and its exit codes."""

import json
import os

import pytest
from pulumi_vllm.cli import main

SERVICE = "urn:pulumi:s::p::vllm:index:Server$vllm:host:Service::server-service"
OTHER = "urn:pulumi:s::p::aws:route53/record:Record::name"


def state(**inputs):
    return {"type": "vllm:host:Service", "inputs": {"observed": "yes", **inputs}}


def step(operation="same", old=None, new=None, urn=SERVICE, **more):
    return {"op": operation, "urn": urn, "oldState": old or state(), "newState": new or state(), **more}


DRAINED = "server-service: gateway answers 503 to every request; `pulumi up` opens it"
DRIFTED = {
    "steps": [
        step(
            "update",
            state(units={"vllm.service": "active"}, differences={"gateway": "is drained"}),
            state(units={"vllm.service": "active"}, differences={}),
            detailedDiff={'differences["gateway"]': {"kind": "delete", "inputDiff": True}},
        ),
        step("update", {"type": "aws:route53/record:Record"}, {"type": "aws:route53/record:Record"}, OTHER),
    ],
    "diagnostics": [
        {"urn": SERVICE, "severity": "warning", "message": f"<{{%fg 3%}}>warning: {DRAINED}<{{%reset%}}>\n"}
    ],
}
BLIND = {"steps": [step(old=state(observed="no: root@192.0.2.7: can't be reached"))]}


@pytest.fixture
def pulumi(tmp_path, monkeypatch):
    """Return a function that sets what the Pulumi CLI prints."""

    def prints(preview, code=0):
        (tmp_path / "out").write_text(preview if isinstance(preview, str) else json.dumps(preview))
        program = tmp_path / "pulumi"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat {tmp_path}/out\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path / "words"

    return prints


def test_a_host_as_declared_is_clean(pulumi, capsys):
    words = pulumi({"steps": [step()]})
    assert main(["drift", "prod"]) == 0
    assert capsys.readouterr().out == "prod: everything is as declared\n"
    assert words.read_text().split()[-5:] == ["preview", "--json", "--refresh", "--stack", "prod"]


def test_a_difference_is_drift_with_both_values(pulumi, capsys):
    pulumi(DRIFTED)
    assert main(["drift", "prod", "--json"]) == 2
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["status"], shown["stack"]) == (1, "drift", "prod")
    assert shown["messages"] == [DRAINED]
    (one,) = shown["differences"]
    assert (one["resource"], one["property"]) == ("server-service", 'differences["gateway"]')
    assert (one["observed"], one["declared"]) == ("is drained", None)


def test_a_person_reads_the_sentences(pulumi, capsys):
    pulumi(DRIFTED)
    assert main(["drift", "prod"]) == 2
    assert capsys.readouterr().out.splitlines() == [DRAINED]


def test_a_difference_without_a_sentence_is_named(pulumi, capsys):
    pulumi({**DRIFTED, "diagnostics": []})
    assert main(["drift", "prod"]) == 2
    line = 'server-service: differences["gateway"]: `pulumi up` would update it'
    assert capsys.readouterr().out.splitlines() == [line]


def test_what_pulumi_up_leaves_is_not_said_to_be_updated(pulumi, capsys):
    told = "server-service: account bob is new since the last `pulumi up`; `pulumi up` leaves it"
    path = 'differences["account bob"]'
    pulumi(
        {
            "steps": [
                step(
                    "update",
                    state(differences={"account bob": "is new"}, units={"a.timer": "inactive"}),
                    detailedDiff={path: {"kind": "delete"}, 'units["a.timer"]': {"kind": "update"}},
                )
            ],
            "diagnostics": [{"urn": SERVICE, "severity": "warning", "message": told}],
        }
    )
    assert main(["drift", "prod"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        told,
        'server-service: units["a.timer"]: `pulumi up` would update it',
    ]


def test_a_host_that_was_not_observed_is_neither_clean_nor_drift(pulumi, capsys):
    pulumi(BLIND)
    assert main(["drift", "prod", "--json"]) == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["status"] == "not observed"
    assert shown["not_observed"] == [
        {"resource": "server-service", "reason": "root@192.0.2.7: can't be reached"}
    ]


def test_a_failed_preview_is_not_observed(pulumi, capsys):
    error = {"severity": "error", "message": "no key for the Spheron API\n"}
    pulumi({"diagnostics": [error]}, code=255)
    assert main(["drift", "prod", "--json"]) == 3
    reason = "the preview failed: no key for the Spheron API"
    assert json.loads(capsys.readouterr().out)["not_observed"] == [{"resource": "", "reason": reason}]


def test_a_replaced_instance_is_listed_once(pulumi, capsys):
    gone = {"type": "vllm:spheron:Instance", "inputs": {}}
    steps = [step(kind, gone, gone) for kind in ("create-replacement", "replace", "delete-replaced")]
    pulumi({"steps": steps})
    assert main(["drift", "prod", "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["differences"]) == 1


def test_a_missing_engine_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["drift", "prod"]) == 3
    assert capsys.readouterr().out == "not observed: pulumi is not on PATH; install the Pulumi CLI\n"
