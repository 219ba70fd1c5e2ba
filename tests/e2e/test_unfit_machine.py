"""A machine that fails the preflight, or an engine that does not serve: one error, and `up` continues after the fix."""

import re

import pytest
import yaml
from harness import REPOSITORY, refused, wait_for
from pulumi_vllm.render import layout

PLANTED = "hf_Planted0123456789"
GPU_DATA = "/usr/share/lc-gpu"
ENGINE = "/opt/vllm/lib/python3*/site-packages/vllm"
# What breaks a machine, the expected error of `up`, and the repair.
CAUSES = {
    "no driver": (
        "mv /usr/bin/nvidia-smi /root/",
        "driver: nvidia-smi is not installed; the image has no working NVIDIA driver, choose another operating",
        "mv /root/nvidia-smi /usr/bin/",
    ),
    "an old driver": (
        f"sed -i.right 's/<driver_version>[0-9.]*/<driver_version>570.211.01/' {GPU_DATA}/nvidia-smi-q.xml",
        "driver 570.211.01 is older than 580.65.06, which the engine needs; choose an operating system",
        f"mv {GPU_DATA}/nvidia-smi-q.xml.right {GPU_DATA}/nvidia-smi-q.xml",
    ),
    "GPUs missing": (
        f"echo 7 > {GPU_DATA}/count",
        "expected 8 x H200, found: NVIDIA H200 (143771 MiB)",
        f"echo 8 > {GPU_DATA}/count",
    ),
    "another GPU": (
        f"sed -i.right 's/NVIDIA H200/NVIDIA H20/' {GPU_DATA}/nvidia-smi-q.xml",
        "expected 8 x H200, found: NVIDIA H20 (143771 MiB)",
        f"mv {GPU_DATA}/nvidia-smi-q.xml.right {GPU_DATA}/nvidia-smi-q.xml",
    ),
    "no fabric manager": (
        "systemctl stop nvidia-fabricmanager",
        "fabric: `systemctl is-active nvidia-fabricmanager` failed: inactive; install the fabric manager",
        "systemctl start nvidia-fabricmanager",
    ),
    "a full disk": (
        "fallocate -l $(($(df --output=avail -B1 /models | tail -n 1) - 200000000)) /models/filler",
        "GB are free or used by weights and caches",
        "rm /models/filler",
    ),
    "no compiler": (
        "mkdir /root/cc && mv /usr/bin/cc /usr/bin/gcc /root/cc/",
        "compiler: no C compiler (cc), which Triton needs at run time; `apt-get install gcc`",
        "mv /root/cc/* /usr/bin/ && rmdir /root/cc",
    ),
    "no Python headers": (
        "mv /usr/include/python3* /root/",
        "Python.h is missing, which Triton needs at run time; `apt-get install python3-dev`",
        "mv /root/python3* /usr/include/",
    ),
    "no own name": (
        r"""cp -a /etc/hosts /etc/nsswitch.conf /root/
            sed -i "/$(hostname)/d" /etc/hosts; sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf""",
        "does not resolve; add `127.0.1.1",
        "cp -a /root/hosts /root/nsswitch.conf /etc/",
    ),
}
# What breaks the fake engine on the host, and the expected error of `up`.
BROKEN_ENGINES = {
    "a flag it does not know": (
        f"sed -i.right 's/--max-model-len/--max-length/' {ENGINE}/arguments.py",
        ("vllm.service failed", "unrecognized arguments: --max-model-len"),
    ),
    "a file missing": (
        f"for f in {ENGINE}/answers.py; do mv $f $f.right; done",
        ("vllm.service failed", "cannot import name 'answers'"),
    ),
    "other tokens": (
        f"sed -i.right 's/token.id for token in/token.id + 1 for token in/' {ENGINE}/answers.py",
        (
            "the readiness check failed: golden tokens",
            "not a524c427dded",
            "check the weights with `weights --verify`",
            "HF_TOKEN=***",
        ),
    ),
    "no chat": (
        f"""sed -i.right 's/reply = prepare/raise answers.Refused(400, "no chat today"); reply = prepare/' \\
            {ENGINE}/application.py""",
        ("the readiness check failed", "a chat got status 400 and no token", "no chat today"),
    ),
}
REPAIR_ENGINE = f"for f in {ENGINE}/*.right; do mv $f ${{f%.right}}; done"


def stack(name: str) -> dict:
    """Return a shipped stack with GPUs as overrides of the smallest one, with the allow-list of the tests."""
    file = REPOSITORY / "stacks" / f"Pulumi.{name}.yaml"
    found = yaml.safe_load(file.read_text())["config"]["pulumi-vllm:server"]
    return found | {"access": {"allow": ["0.0.0.0/0", "::/0"], "keys": ["default"]}, "drain_timeout_s": 5}


@pytest.fixture
def unready(projects):
    """Return a function that creates a stack with a machine, whose weights the hub still refuses."""
    made = []

    def make(**more):
        # A machine on which vLLM is never ready would be ended: see test_power_off.py.
        machine = {"keep_failed": True} | more.pop("machine", {})
        of_engine = {"engine": more.pop("engine")} if "engine" in more else {}
        project = projects("fake", machine=machine, **more)
        project.block |= of_engine
        project.write(project.block)
        made.append(project)
        project.cloud.hub(gated=1)
        refused(project, "access is restricted and no token is set", "accept the terms at")
        project.cloud.hub(gated="")
        return project

    yield make
    for project in made:
        project.cloud.hub(gated="", clock="", rate="")


def break_engine(project, script: str) -> None:
    """Break the engine on the host, with a secret in its first and last log lines."""
    planted = f'print("INFO HF_TOKEN={PLANTED}", file=sys.stderr)'
    project.on_host(f"""
        {script}
        echo 'import atexit, sys; {planted}; atexit.register(lambda: {planted})' | tee -a {ENGINE}/__init__.py
        touch {layout.ENGINE_STAMP}  # it was installed like that; an edited engine would be installed again
        systemctl stop vllm.service""")


def repair_engine(project) -> None:
    project.on_host(
        f"{REPAIR_ENGINE}; sed -i '/{PLANTED}/d' {ENGINE}/__init__.py; touch {layout.ENGINE_STAMP}"
    )


def test_errors_found_on_the_machine_are_reported_and_up_continues(unready):
    project = unready(**stack("spheron-h100-1x-nvfp4"))
    machine = project.machine_id()
    causes = [CAUSES[name] for name in ("an old driver", "no compiler", "a full disk")]
    project.on_host("\n".join(script for script, _, _ in causes))
    refused(
        project,
        "vllm-preflight.service failed",
        "driver 570.211.01 is older",
        "no C compiler",
        "GB needed, but only",
    )
    project.on_host("\n".join(script for _, _, script in causes))

    project.cloud.hub(rate=40_000)  # 13 seconds, longer than the interval of progress messages
    break_engine(project, BROKEN_ENGINES["no chat"][0])
    shown = refused(project, *BROKEN_ENGINES["no chat"][1], "HF_TOKEN=***")
    assert PLANTED not in shown
    assert re.search(r"downloading, \d+/\d+ files, [\d.]+/7.\d MB, [\d.]+ MB/s, \d+ s left", shown), shown
    project.cloud.hub(rate="")
    repair_engine(project)
    project.up()
    assert project.machine_id() == machine

    # A flipped byte on the volume is found before vLLM starts, and only that file is downloaded again.
    shard = "consolidated-00007-of-00013.safetensors"
    project.cloud.hub("DELETE", "/_log")
    project.on_host(f"""
        printf x | dd of=$(echo /models/weights/*/*/*/{shard}) bs=1 seek=300000 conv=notrunc status=none
        systemctl restart vllm.service""")
    rows = project.cloud.hub("GET", "/_log")
    assert [row["path"].rpartition("/")[2] for row in rows] == [shard]
    assert project.on_host("systemctl is-active vllm.service") == "active\n"


@pytest.mark.all
def test_each_check_of_the_preflight(unready):
    project = unready(
        **stack("spheron-h200-2x-fp8") | {"machine": {"gpu": "H200", "count": 8, "max_usd_per_hour": 40}}
    )
    machine = project.machine_id()
    for name, (script, words, repair) in CAUSES.items():
        project.on_host(script)
        refused(project, "vllm-preflight.service failed", words)
        project.on_host(repair)
        assert project.machine_id() == machine, name
    project.cloud.hub(clock=-3600)
    refused(project, "clock: the clock is 36", "set the clock, or start a time service (systemd-timesyncd)")
    project.cloud.hub(clock="")
    project.up()
    assert project.machine_id() == machine
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_each_failure_of_the_engine(projects):
    project = projects("fake", machine={"keep_failed": True})
    project.cloud.hub(gated=1)
    refused(project, "access is restricted and no token is set")
    project.cloud.hub(gated="")
    machine = project.machine_id()
    for script, words in BROKEN_ENGINES.values():
        break_engine(project, script)
        shown = refused(project, *words)
        assert PLANTED not in shown
        assert project.machine_id() == machine
        repair_engine(project)
    project.up()
    wait_for(
        lambda: project.on_host("systemctl is-active vllm.service", check=False) == "active\n", 30, "vllm"
    )
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_a_new_machine_that_is_never_ready_is_ended_and_the_next_up_rents_another(unready):
    project = unready(machine={"keep_failed": False})
    first = project.machine_id()
    break_engine(project, BROKEN_ENGINES["no chat"][0])
    failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode != 0
    for words in (
        *BROKEN_ENGINES["no chat"][1],
        "the machine was ended, because it never became ready",
        "`server.machine.keep_failed: true` keeps one",
    ):
        assert words in failed.stdout, failed.stdout
    records = {one["id"]: one["status"] for one in project.cloud.api("/_sim/state")["deployments"]}
    assert records[first] == "terminated"
    project.cloud.hub("DELETE", "/_log")
    project.up()
    assert project.machine_id() != first
    assert not [row for row in project.cloud.hub("GET", "/_log") if row["path"].endswith(".safetensors")]

    # It has served: now a failure does not end it.
    serving = project.machine_id()
    project.pulumi("destroy", "--yes", "--skip-preview", "--target", "**vllm:host:Service::**")
    break_engine(project, BROKEN_ENGINES["no chat"][0])
    shown = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert "was ended" not in shown.stdout
    assert project.machine_id() == serving
    assert project.cloud.api(f"/api/deployments/{serving}")["status"] == "running"
