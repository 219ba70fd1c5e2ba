"""Changes on the host appear in a plain preview, and `up` reverts them."""

import contextlib
import json
import re
import subprocess
import threading

import pytest
from harness import wait_for

PREVIEWS = 200
UNIT = "/etc/systemd/system/vllm.service"


@pytest.fixture
def project(projects):
    made = projects("fake")
    made.up()
    return made


def on_host(project, script: str) -> str:
    """Run a script on the host as root, over SSH."""
    connection = project.outputs()["connection"]
    key = project.folder / "key"
    key.write_text(connection["privateKey"])
    key.chmod(0o600)
    known = project.folder / "known_hosts"
    known.write_text(f"{connection['host']} {connection['hostKey']}\n")
    done = subprocess.run(
        [
            "ssh",
            "-i",
            str(key),
            "-o",
            f"UserKnownHostsFile={known}",
            "-o",
            "BatchMode=yes",
            "-p",
            str(int(connection["port"])),
            f"{connection['user']}@{connection['host']}",
            "sudo -n bash -eu",
        ],
        input=script,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repair_what_runs(project):
    """Change what runs, and no file: boot, firewall and gateway."""
    on_host(
        project,
        "systemctl disable -q haproxy; nft flush ruleset; /usr/local/lib/pulumi-vllm/drain --timeout 0 || true",
    )
    drift = project.cli("drift", project.stack, "--json")
    assert drift.returncode == 2, drift.stdout + drift.stderr
    found = json.loads(drift.stdout)
    assert {one["resource"] for one in found["differences"]} == {"server-service"}
    declared = {one["property"]: one["declared"] for one in found["differences"]}
    assert declared['differences["gateway"]'] is None
    assert declared["answers"] == "yes"
    shown = "\n".join(found["messages"])
    for sentence in (
        "haproxy.service at boot is disabled, declared enabled; `pulumi up` enables it",
        "firewall has none of its rules, so anybody reaches port 22, port 443",
        "gateway answers 503 to every request: its server is DRAIN, declared UP; `pulumi up` opens it",
    ):
        assert sentence in shown
    project.up()
    on_host(project, "nft list table inet pulumi_vllm; curl -skf https://127.0.0.1/healthz")
    clean = project.cli("drift", project.stack)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert clean.stdout.endswith(f"{project.stack}: everything is as declared\n")


def check_not_observed(project):
    """`drift` has an exit code of its own for a host that was not observed."""
    drift = project.cli("drift", project.stack)
    assert drift.returncode == 3, drift.stdout + drift.stderr
    assert "not observed: server-service: " in drift.stdout


def test_drift_is_a_diff_and_up_reverts_it(project):
    # An edited line of a unit appears as that line and one warning.
    on_host(project, f"sed -i 's/^LimitNOFILE=.*/LimitNOFILE=4711/' {UNIT}")
    shown = project.pulumi("preview", "--diff").stdout
    assert "LimitNOFILE=4711" in shown
    assert shown.count("changed on the host") == 1
    assert len(shown.splitlines()) < 60, shown
    project.up()
    assert "LimitNOFILE=4711" not in on_host(project, f"cat {UNIT}")
    assert set(project.changes()) == {"same"}

    # An undeclared drop-in: its secret leaves the host masked, and `up` repairs the process too.
    lines = "[Service]\\nUser=root\\nEnvironment=HF_TOKEN=planted-4711\\n"
    on_host(
        project,
        f"mkdir -p {UNIT}.d && printf '{lines}' > {UNIT}.d/mine.conf && systemctl daemon-reload; "
        "systemctl restart vllm",
    )
    shown = project.pulumi("preview", "--diff").stdout
    assert "mine.conf" in shown
    assert "HF_TOKEN=***" in shown
    assert "planted" not in shown
    assert "vllm.service process was started with other files than declared" in shown
    project.up()
    assert "mine.conf" not in on_host(project, f"ls {UNIT}.d 2>/dev/null || true")
    assert on_host(project, "stat -c %U /proc/$(systemctl show -P MainPID vllm)") == "vllm\n"
    assert set(project.changes()) == {"same"}

    repair_what_runs(project)

    # A stopped service.
    on_host(project, "systemctl stop vllm.service")
    shown = project.pulumi("preview", "--diff").stdout
    assert "vllm.service is inactive" in shown
    project.up()
    assert on_host(project, "systemctl is-active vllm.service").strip() == "active"

    # Greetings of the shells' start files are not drift, and do not reach the state.
    greet = "sed -i '1i echo Welcome; echo unbound >&2' /root/.bashrc ~ubuntu/.bashrc"
    on_host(project, greet)
    assert set(project.changes()) == {"same"}
    on_host(project, "sed -i 1d /root/.bashrc ~ubuntu/.bashrc")

    # A frozen machine was not observed, which is a difference unless the stack says otherwise.
    (machine,) = [m for m in project.cloud.machines() if m["id"] == project.machine_id()]
    project.cloud.api(f"/_sim/pause/{machine['id']}", "POST")
    try:
        preview = project.pulumi("preview", "--diff", "--expect-no-changes", check=False)
        assert preview.returncode
        assert "showing the state of the last refresh" in preview.stdout
        assert re.search(r'observed *: "no: .*" => "yes"', preview.stdout), preview.stdout
        assert project.changes()["update"] == 4
        check_not_observed(project)
        failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
        assert failed.returncode
        assert "run `pulumi up` again when the host answers" in failed.stdout, failed.stdout
        project.pulumi("config", "set", "--path", "pulumi-vllm:server.unreachable", "warn")
        assert set(project.changes()) == {"same"}
        project.pulumi("config", "rm", "--path", "pulumi-vllm:server.unreachable")
    finally:
        project.cloud.api(f"/_sim/unpause/{machine['id']}", "POST")
    wait_for(lambda: on_host(project, "true") == "", 30, "answer after the pause")
    assert set(project.changes()) == {"same"}


@contextlib.contextmanager
def under_load(project):
    """Send requests through the gateway, eight at once, as `bench` does. Yields the exit codes of its runs."""
    codes, stopped = [], threading.Event()

    def run():
        while not stopped.is_set():
            words = (
                "--levels",
                "8",
                "--input",
                "64",
                "--output",
                "64",
                "--out",
                str(project.folder / "bench"),
            )
            codes.append(project.cli("bench", "--json", *words).returncode)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield codes
    finally:
        stopped.set()
        thread.join()


@pytest.mark.all
def test_two_hundred_previews_under_load_show_nothing(project):
    with under_load(project) as codes:
        for number in range(PREVIEWS):
            shown = project.cli("drift", project.stack, "--json")
            assert shown.returncode == 0, f"preview {number}: {shown.stdout}{shown.stderr}"
            assert json.loads(shown.stdout)["messages"] == []
    assert codes
    assert set(codes) == {0}
