"""Errors that only appear on the machine: one message, the machine stays in state, and `up` continues after the fix."""

import pytest
from harness import refused, wait_for


@pytest.fixture
def project(projects):
    made = projects("fake")
    yield made
    made.cloud.hub(**dict.fromkeys(("status", "times", "code", "on", "gated", "auth", "rate", "corrupt"), ""))


@pytest.mark.all
def test_refusals_of_the_hub_are_one_error_and_up_continues(project):
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


def wait_for_host(project) -> None:
    wait_for(lambda: project.on_host("echo up", check=False) == "up\n", 120, "answer of the machine")


def change(project, requests_per_minute: int) -> None:
    """Make a change that has to be written to the host."""
    project.write(project.block | {"gateway": {"requests_per_minute": requests_per_minute}})


@pytest.mark.all
def test_a_host_that_refuses_the_login_or_has_another_key(project):
    project.up()
    # A timer restores the key, because nobody else can log in.
    project.on_host("""
        for f in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
          [ -e $f ] || continue
          mv $f $f.away
          systemd-run --collect --on-active=45 mv $f.away $f
        done""")
    change(project, 601)
    refused(project, "does not accept our key")
    wait_for_host(project)
    project.up()

    project.on_host("""
        mkdir /root/keys && mv /etc/ssh/ssh_host_* /root/keys/
        ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
        systemctl restart ssh""")
    change(project, 602)
    refused(project, "shows another host key than the pinned one, so nothing was sent to it")
    project.on_host(
        "rm /etc/ssh/ssh_host_*; mv /root/keys/* /etc/ssh/; rmdir /root/keys; systemctl restart ssh"
    )
    project.up()
    assert "602" in project.on_host("cat /etc/pulumi-vllm/gateway/limits.map")


@pytest.mark.all
def test_a_volume_of_another_region_or_another_stack(project, projects):
    project.up()
    second = projects("fake", stack=project.stack)  # the same names from another checkout
    done = second.pulumi("up", "--yes", check=False)
    assert done.returncode != 0
    assert "a volume has one writer" in done.stdout
    assert [r["type"] for r in second.resources()] == []
    project.cloud.pass_minutes(30)
    project.destroy()
    elsewhere = {"machine": project.block["machine"] | {"region": "EU North 1"}}
    second.write(second.block | elsewhere)
    done = second.pulumi("up", "--yes", check=False)
    assert done.returncode != 0
    assert "is in US Central 1, but the stack wants EU North 1; set the region to US Central 1" in done.stdout
    assert [r["type"] for r in second.resources()] == []
    second.write(second.block | {"storage": "3GB"})
    done = second.pulumi("up", "--yes", check=False)
    assert "has 2 GB, but the stack wants 3" in done.stdout
    second.write(second.block)
    shown = second.up()
    assert "adopted the volume" in shown
    assert "0.00 GB fetched" in second.on_host("journalctl -u vllm-weights -o cat") or "already complete" in (
        second.on_host("journalctl -u vllm-weights -o cat")
    )
