"""Bad input fails the preview of the engine, with all errors at once, before anything is created."""

import pytest
import yaml


@pytest.fixture
def project(projects):
    return projects("fake")


def refused(project, *words: str) -> str:
    """Check that `up` fails in its preview, and that the cloud got no request that creates anything."""
    project.cloud.api("/_sim/log", "DELETE")
    done = project.pulumi("up", "--yes", check=False)
    assert done.returncode != 0, done.stdout
    for word in words:
        assert word in done.stdout, f"{word!r} is not in\n{done.stdout}"
    assert "Traceback" not in done.stdout
    requests = project.cloud.api("/_sim/log")
    assert [r["urn"] for r in project.resources()] == []
    assert [row for row in requests if row["method"] not in {"GET", "HEAD"}] == []
    return done.stdout


def test_all_errors_of_a_stack_file_are_reported_at_once(project):
    machine = project.block["machine"] | {"gpu": "CPUU", "billing": "monthly", "max_usd_per_hour": -2}
    access = {"allow": ["10.0.0.1/8", "all"], "keys": ["a", "a"]}
    changes = {"precision": "fp7", "context": "900Mi", "concurency": 4, "drain_timeout_s": "soon"}
    project.write(project.block | changes | {"machine": machine, "access": access, "storage": "1PB"})
    refused(
        project,
        "server.machine.gpu: 'CPUU' is not in the catalogue; did you mean CPU?",
        "server.machine.billing: 'monthly' is not allowed; write on-demand or spot",
        "server.machine.max_usd_per_hour: -2 is out of range; write more than 0",
        "server.precision: mistral-small-4-tiny is not published in 'fp7'; known are bf16",
        "server.context: 943,718,400 tokens are beyond",
        "server.concurency: unknown key; did you mean concurrency?",
        "server.drain_timeout_s: 'soon' is not a whole number",
        "server.access.allow.0: 10.0.0.1/8 has host bits set",
        "server.access.allow.1: 'all' does not appear to be",
        "server.access.keys: 'a' appears twice",
        "server.storage: '1PB' is not a size",
    )


def test_errors_that_only_the_cloud_can_find(project):
    machine = project.block["machine"] | {"max_usd_per_hour": 0.001}
    project.write(project.block | {"machine": machine})
    refused(project, "no offer within $0.00/h", "raise max_usd_per_hour")
    project.write(project.block)
    right = project.environment["SPHERON_API_KEY"]
    project.environment["SPHERON_API_KEY"] = "sai_pk_wrong_0815"
    output = refused(project, "the API key was not accepted, check SPHERON_API_KEY")
    assert "wrong_0815" not in output
    del project.environment["SPHERON_API_KEY"]
    refused(project, "no key for the Spheron API; set SPHERON_API_KEY")
    project.environment["SPHERON_API_KEY"] = right
    assert set(project.changes()) == {"create"}


def test_a_stack_name_that_does_not_match_its_file(project):
    project.pulumi("stack", "init", "spheron-h200-2x-fp9")
    project.stack = "spheron-h200-2x-fp9"
    refused(project, "no pulumi-vllm:server in its configuration", "did you mean spheron-h200-2x-fp8?")
    project.write(project.block | {"access": {"allow": ["all"]}})
    refused(
        project,
        "server.machine.gpu: is CPU, but the stack's name spheron-h200-2x-fp9 says h200",
        "server.machine.count: is 0, but",
        "server.access.allow.0: 'all'",
    )
    file = project.folder / "Pulumi.spheron-h200-2x-fp9.yaml"
    assert "config" in yaml.safe_load(file.read_text())
