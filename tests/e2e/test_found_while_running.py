"""What is only found on the machine: one sentence, the machine stays in state, `up` goes on once it is gone."""

import re

import pytest


@pytest.fixture
def project(projects):
    made = projects("fake")
    yield made
    made.cloud.hub(**dict.fromkeys(("status", "times", "code", "on", "gated", "auth", "rate", "corrupt"), ""))


def refused(project, *words: str) -> str:
    """`up` fails with one sentence that holds the words; the one machine stays, and state knows it."""
    done = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert done.returncode != 0, done.stdout
    for word in words:
        assert word in done.stdout, f"{word!r} is not in\n{done.stdout}"
    assert "Traceback" not in done.stdout
    said = re.findall(
        r"^ *error: (?!update failed|resource .* was not successfully).*$", done.stdout, re.MULTILINE
    )
    assert len(set(said)) == 1, said
    ours = [m for m in project.cloud.machines() if m["name"].startswith(f"{project.stack}-")]
    assert [m["id"] for m in ours] == [project.machine_id()]
    return done.stdout


@pytest.mark.all
def test_refusals_of_the_hub_end_in_a_sentence_and_up_goes_on(project):
    hub = project.cloud.hub
    hub(status=404, code="RevisionNotFound", on="api")
    refused(project, "vllm-weights.service failed", "revision", "does not exist; correct it in the catalogue")
    hub(status=404, code="", on="resolve")
    refused(project, "the hub answered 404", "check the name and weights.endpoint")
    hub(status="", on="", gated=1)
    refused(project, "access is restricted and no token is set", "accept the terms at")
    hub(gated="", auth="hf_right_token_1")
    refused(project, "or it is private and no token is set", "set the secret hf_token")
    project.pulumi("config", "set", "--secret", "pulumi-vllm:hfToken", "hf_wrong_token_1")
    assert "hf_wrong" not in refused(project, "the token was refused")
    project.pulumi("config", "set", "--secret", "pulumi-vllm:hfToken", "hf_right_token_1")
    before = project.machine_id()
    shown = project.up()
    assert "hf_right" not in shown
    assert project.machine_id() == before
    assert set(project.changes()) == {"same"}
