"""The schedules of docs/how-to: the steps of the workflows in bash, and the units under a systemd of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
import yaml
from consumer import Consumer
from harness import REGIONS, REPOSITORY, answers, block, wait_for
from pulumi_vllm_local.images.image_cache import ImageCache
from pulumi_vllm_local.machines import cgroups

HOW_TO = REPOSITORY / "docs" / "how-to"
SPOT = {"billing": "spot", "fallback": "on-demand", "region": REGIONS["block"]}
GROUPS = "pulumi-vllm-tests"
PROVIDED = {"actions/checkout", "actions/cache", "pulumi/actions"}
"""Steps that the test stands in for: the project's folder, which stays, and the Pulumi CLI on the path."""


class Workflow:
    """A workflow of GitHub whose `run:` steps run here, as `bash -e` in the project's folder."""

    def __init__(self, consumer: Consumer, file: str, secrets: dict[str, str]):
        self.consumer, self.secrets = consumer, secrets
        self.document = yaml.safe_load((HOW_TO / file).read_text())
        (self.job,) = self.document["jobs"].values()

    @property
    def crons(self) -> list[str]:
        return [one["cron"] for one in self.document[True]["schedule"]]  # YAML reads `on` as true

    def run(self, cron: str) -> str:
        """Run the job as GitHub does at a cron line. Return what its steps printed."""
        assert cron in self.crons
        printed = ""
        for step in self.job["steps"]:
            if "uses" in step:
                assert step["uses"].partition("@")[0] in PROVIDED
                continue
            condition = re.fullmatch(r"github\.event\.schedule == '(.*)'", step.get("if", ""))
            assert bool(condition) == ("if" in step)
            if condition and condition[1] != cron:
                continue
            values = self.job.get("env", {}) | step.get("env", {})
            given = {name: self.secrets[value[4:-3].split(".")[1]] for name, value in values.items()}
            done = subprocess.run(
                ["bash", "-ec", step["run"]],
                cwd=self.consumer.folder,
                env=self.consumer.environment | given,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=1200,
            )
            assert done.returncode == 0, f"{step['run']}\n{done.stdout}"
            printed += done.stdout
        return printed


def wheel(folder: Path) -> str:
    """Build the package. Return the folder, in which pip finds it: no index has it yet."""
    build = "python3 -m venv build && build/bin/pip wheel -q --no-deps -w wheels"
    subprocess.run(["bash", "-ec", f"{build} {REPOSITORY}"], cwd=folder, check=True)
    return str(folder / "wheels")


def machines(cloud, stack: str) -> list[dict]:
    return [one for one in cloud.machines() if one["name"].startswith(f"{stack}-")]


def take(cloud, stack: str) -> None:
    (machine,) = machines(cloud, stack)
    cloud.api(f"/_sim/reclaim/{machine['id']}", "POST")
    wait_for(lambda: not machines(cloud, stack), 120, "end of the machine")


@pytest.mark.all
def test_the_workflows_run_a_server_by_the_clock(clouds, place, tmp_path):
    cloud = clouds("fake")
    # The tests' own values, which a project at Pulumi's service does not need.
    ours = {name: value for name, value in cloud.environment.items() if name != "SPHERON_API_KEY"}
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {wheel(place)}".strip()
    consumer = Consumer(place / "llm", "prod", PIP_FIND_LINKS=links, **ours)
    init = [sys.executable, "-m", "pulumi_vllm.cli", "init", str(consumer.folder)]
    subprocess.run(init, check=True, capture_output=True)
    written = block(machine=SPOT, expires="8h", owner="ana")
    config = {"config": {"pulumi-vllm:server": written}}
    (consumer.folder / "Pulumi.prod.yaml").write_text(yaml.safe_dump(config))
    secrets = {"SPHERON_API_KEY": cloud.environment["SPHERON_API_KEY"], "PULUMI_ACCESS_TOKEN": "pul-none"}
    clock = Workflow(consumer, "schedule/github-workflow.yml", secrets)
    morning, evening = clock.crons
    consumer.pulumi("stack", "init", "prod")
    try:
        clock.run(morning)
        assert answers(consumer, tmp_path)
        keys = consumer.outputs()["api_keys"]
        cloud.pass_minutes(30)
        clock.run(evening)
        assert machines(cloud, "prod") == []
        rows = [one for one in cloud.api("/_sim/state")["volumes"] if one["name"].startswith("prod-")]
        assert len(rows) == 1, "the volume is not kept"
        clock.run(morning)
        assert answers(consumer, tmp_path)
        assert consumer.outputs()["api_keys"] == keys

        take(cloud, "prod")
        again = Workflow(consumer, "reconcile/github-workflow.yml", secrets)
        assert "served again after" in again.run(*again.crons)
        assert answers(consumer, tmp_path)
        assert "the machine runs" in again.run(*again.crons)

        take(cloud, "prod")
        deployments = json.loads((HOW_TO / "reconcile/pulumi-deployments.json").read_text())["request"]
        commands = deployments["operationContext"]["preRunCommands"]
        script = "\n".join(
            (". .venv/bin/activate", *commands, f"pulumi {deployments['operation']} --stack prod")
        )
        script = script.replace("ORGANIZATION/PROJECT/STACK", "organization/llm/prod")
        consumer.environment |= secrets
        assert "served again after" in consumer.shell(script)
        assert answers(consumer, tmp_path)

        consumer.on_host("systemd-run -q --on-active=0.1 systemctl poweroff")
        wait_for(lambda: machines(cloud, "prod")[0]["status"] == "stopped", 120, "powered off machine")
        cloud.pass_minutes(30)
        sweep = Workflow(consumer, "schedule/sweep-workflow.yml", secrets)
        sweep.run(*sweep.crons)
        wait_for(lambda: not machines(cloud, "prod"), 60, "end of the machine")
    finally:
        consumer.environment |= secrets
        consumer.pulumi("destroy", "--yes", "--skip-preview", check=False)


class Scheduler:
    """A container with this computer's network, in which systemd runs the units of docs/how-to/reconcile."""

    def __init__(self, folder: Path, binds: list[Path]):
        self.folder, self.binds = folder, binds
        self.group = cgroups.Group(GROUPS, f"scheduler-{os.getpid()}")
        self.merged = folder / "merged"

    def __enter__(self) -> Self:
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(parents=True)
        lower = ImageCache().cached("base")
        options = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "scheduler", "-o", options, self.merged], check=True)
        self.group.make()
        command = [
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--directory={self.merged}"),
            *(f"--bind={path}" for path in self.binds),
        ]

        enter = 'for group in $GROUPS_OF_IT; do echo 0 > "$group/cgroup.procs"; done; exec "$@"'
        with (self.folder / "console").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-ec", enter, "enter", *command],
                env={"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                     "GROUPS_OF_IT": " ".join(map(str, self.group.paths))},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(
            lambda: self.run("systemctl is-system-running", check=False).strip() in {"running", "degraded"}
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.group.kill()
            self.process.wait(30)
        cgroups.remove_parent(GROUPS)
        subprocess.run(["umount", self.merged], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, script: str, *, check: bool = True) -> str:
        """Run a script as root in the container."""
        leader = self.group.leader()
        if leader is None:
            return ""
        done = subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--", "/bin/bash", "-ec", script],
            text=True, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.all
def test_the_timer_brings_a_server_back(projects, place, tmp_path):
    project = projects("fake", machine=SPOT)
    project.up()
    (project.folder / ".venv").symlink_to(REPOSITORY / ".venv")
    unit = f"pulumi-vllm-reconcile@{project.stack}"
    wanted = ("SPHERON_", "PULUMI_", "HF_")
    values = {name: value for name, value in project.environment.items() if name.startswith(wanted)}
    values["PATH"] = project.environment["PATH"]
    engine = Path(shutil.which("pulumi")).resolve().parents[1]
    with Scheduler(place / "scheduler", [project.folder, REPOSITORY, Path(sys.base_prefix), engine]) as host:
        home = host.merged / "root"
        home.chmod(0o755)  # a Python below /root is a matter of the computer that runs the test
        host.run(
            f"useradd --create-home deploy; ln -s {project.folder} /srv/llm; chown -R deploy {project.folder}"
        )
        for name in ("service", "timer"):
            text = (HOW_TO / f"reconcile/pulumi-vllm-reconcile@.{name}").read_text()
            (host.merged / f"etc/systemd/system/pulumi-vllm-reconcile@.{name}").write_text(text)
        environment = host.merged / "etc/pulumi-vllm-reconcile.env"
        environment.touch(0o600)
        environment.write_text("".join(f'{name}="{value}"\n' for name, value in values.items()))
        take(project.cloud, project.stack)
        host.run(f"systemctl daemon-reload; systemctl enable --now {unit}.timer")
        wait_for(lambda: machines(project.cloud, project.stack), 360, "machine that the timer has rented")
        journal = f"journalctl -u {unit}.service -o cat --no-pager"
        wait_for(lambda: "served again after" in host.run(journal), 300, "end of the run")
        assert answers(project, tmp_path)
        assert host.run(f"systemctl show -P Result {unit}.service").strip() == "success"

        # A stop in the middle gives the lock of the stack back.
        host.run(f"systemctl disable --now {unit}.timer")
        take(project.cloud, project.stack)
        host.run(f"systemctl start --no-block {unit}.service")
        wait_for(lambda: host.run(journal).count("rented after") == 2, 120, "rented machine")
        host.run(f"systemctl stop {unit}.service")
        assert host.run(f"systemctl is-active {unit}.service || true").strip() in {"inactive", "failed"}
        project.up()
        assert answers(project, tmp_path)
