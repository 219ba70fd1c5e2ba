"""A machine that nobody needs: it powers off, and the cloud's key alone is enough to end it."""

import json

from harness import Project, wait_for

CLEAR_KEYS = """
PYTHONPATH=/usr/local/lib/pulumi-vllm python3 - <<'END'
from gateway_admin import admin_command
print(admin_command("/run/pulumi-vllm-gateway/admin.sock", "clear table keys"))
END
"""


def age(project: Project, **counted: float) -> None:
    """Let the host have counted so many seconds, and run its check once."""
    changes = json.dumps(counted)
    project.on_host(
        f"""
systemctl start vllm-lifetime
python3 - <<'END'
import json, pathlib
state = pathlib.Path("/var/lib/pulumi-vllm/lifetime.json")
state.write_text(json.dumps(json.loads(state.read_text()) | {changes}))
END
"""
    )
    project.on_host("systemctl start --no-block vllm-lifetime; sleep 1", check=False)


def status(project: Project) -> str:
    (found,) = [m for m in project.cloud.api("/_sim/state")["deployments"] if m["id"] == project.machine_id()]
    return found["status"]


def expired(project: Project, *arguments: str) -> tuple[int, list[dict]]:
    """Run `sweep --expired` as in a job that has no state."""
    done = project.cli("sweep", "--expired", "--json", *arguments)
    assert "states read" not in done.stderr
    found = [row for row in json.loads(done.stdout)["found"] if row["id"] == project.machine_id()]
    return done.returncode, found


def powers_off_when_idle_and_is_swept(project: Project, idle_stop_s: float) -> None:
    """The stack has `owner: ana`, `expires` and `idle_stop`."""
    assert expired(project) == (0, [])
    (row,) = [row for row in json.loads(project.sweep().stdout)["found"] if row["id"] == project.machine_id()]
    assert row["owner"] == "ana"
    assert row["expires"] is not None
    cost = json.loads(project.cli("cost", project.stack, "--json").stdout)
    assert {(one["kind"], one["source"]) for one in cost["items"]} == {
        ("machine", "the cloud's record"),
        ("volume", "computed: time x price"),
    }
    assert cost["usd"] > cost["computed_usd"] > 0
    # The caller has just chatted, and the gateway's table shows it for two minutes.
    age(project, idle_s=idle_stop_s)
    memory = json.loads(project.on_host("cat /var/lib/pulumi-vllm/lifetime.json"))
    assert (memory["idle_s"], status(project)) == (0, "running")
    # The canary's own requests are no use.
    project.on_host(CLEAR_KEYS + "systemctl start vllm-canary")
    age(project, idle_s=idle_stop_s)
    wait_for(lambda: status(project) == "stopped", 90, "powered off machine")
    printed = project.pulumi("preview", "--diff").stdout
    assert "powered off, as it does when nobody uses it (server.idle_stop)" in printed
    assert "replace" in printed
    project.cloud.pass_minutes(30)
    code, (row,) = expired(project)
    assert (code, row["status"], row["owner"]) == (2, "stopped", "ana")
    code, (row,) = expired(project, "--delete")
    assert (code, row["deleted"]) == (0, True)
    wait_for(lambda: status(project) == "terminated", 30, "ended machine")
