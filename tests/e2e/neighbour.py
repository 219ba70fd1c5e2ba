"""A second machine in the same network as that of a stack, and what it can reach there."""

import contextlib
import json
import subprocess

from harness import wait_for

LISTENERS = """
mkdir -p /var/empty
for where in 0.0.0.0:7001 :::7002 0.0.0.0:8001 :::9090; do
  systemd-run -q --collect python3 -m http.server --bind "${where%:*}" "${where##*:}" --directory /var/empty
done
"""
PROBE = """python3 - <<'END'
import concurrent.futures, itertools, json, socket
def opens(where):
    host, port = where
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as link:
        link.settimeout(3)
        return link.connect_ex((host, port)) == 0
tried = list(itertools.product(HOSTS, PORTS))
with concurrent.futures.ThreadPoolExecutor(len(tried)) as pool:
    print(json.dumps([where for where, is_open in zip(tried, pool.map(opens, tried)) if is_open]))
END"""


def only_the_gateway_is_open(project):
    """Try every listening port from a second machine, over IPv4 and IPv6."""
    project.on_host(LISTENERS)
    ports = {int(row.split()[4].rpartition(":")[2]) for row in project.on_host("ss -Hltnu").splitlines()}
    assert {22, 443, 7001, 7002, 8000, 8001, 8405, 9090} <= ports
    listening = project.on_host("ss -Hltn").split("\n")
    for port in (8000, 8405):
        assert {row.split()[3] for row in listening if row and row.split()[3].endswith(f":{port}")} == {
            f"127.0.0.1:{port}"
        }
    shown = project.on_host("ip -j -6 addr show scope global")
    six = {one["local"] for link in json.loads(shown) for one in link.get("addr_info", ()) if one}
    machine, _ = project.machine()
    assert six, "the machine has no IPv6 address to try"
    with beside(project) as run:
        found = json.loads(
            run(
                PROBE.replace("HOSTS", repr([machine["address"], *sorted(six)])).replace(
                    "PORTS", repr(sorted(ports))
                )
            )
        )
    assert {port for _, port in found} == {22, 443}
    assert {host for host, _ in found} == {machine["address"], *six}


@contextlib.contextmanager
def beside(project):
    """Rent another machine outside the stack; yield a function that runs a script on it."""
    api, machine = project.cloud.api, project.machine()[0]
    (key,) = [r["outputs"]["publicKey"] for r in project.resources() if r["type"] == "vllm:spheron:SshKey"]
    (group,) = api("/api/gpu-offers?limit=50&search=cpu")["data"][:1]
    offer = next(
        one for one in group["offers"] if (one["provider"], one["gpuCount"]) == (machine["provider"], 0)
    )
    made = api("/api/deployments", "POST", {
        "provider": offer["provider"], "offerId": offer["offerId"], "gpuType": group["gpuType"], "gpuCount": 0,
        "region": offer["clusters"][0], "operatingSystem": offer["os_options"][0], "instanceType": "DEDICATED",
        "teamId": api("/api/teams")["teams"][0]["id"], "name": "neighbour", "ssh_public_key": key,
    })  # fmt: skip
    other = wait_for(
        lambda: (found := api(f"/api/deployments/{made['id']}"))["status"] == "running" and found,
        what="second machine",
    )
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    where = f"{machine['user']}@{other['ipAddress']}"
    words = ["ssh", "-q", "-i", str(project.folder / "key"), *options, where]

    def run(script):
        return subprocess.run(
            [*words, "bash -eu"], input=script, text=True, capture_output=True, check=True, timeout=120
        ).stdout

    try:
        yield run
    finally:
        project.cloud.pass_minutes(30)
        api(f"/api/deployments/{made['id']}", "DELETE")
