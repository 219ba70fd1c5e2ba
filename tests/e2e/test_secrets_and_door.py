"""One stack, its whole life: no secret shows anywhere, keys turn over unnoticed, and only the door is open."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import traces
from harness import PASSPHRASE, client, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "door"))
import attacks
from door import exchange

KEYS = {"team-a": "sk-planted-first-0a1b2c3d4e5f", "team-b": "sk-planted-second-6a7b8c9d0e1f"}
NEW_KEY = "sk-planted-new-value-2a3b4c5d6e7f"
WRONG_TOKEN, TOKEN = "hf_PlantedWrongToken4711", "hf_PlantedRightToken0815"
MIB = 2**20
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
SEARCHED = "/etc /var /run /root /home /tmp /usr/local /opt/vllm /models"
FILES = f"grep -rlF -f /dev/stdin {SEARCHED} 2>/dev/null <<'END' || true\n"
HOLD = {
    "/etc/pulumi-vllm/secrets/hf-token", "/etc/pulumi-vllm/secrets/gate-token", "/etc/pulumi-vllm/door/tls.pem",
}  # fmt: skip


def test_no_secret_shows_keys_turn_over_and_only_the_door_is_open(projects, tmp_path):
    project = projects(
        "fake",
        access={"allow": ["0.0.0.0/0", "::/0"], "keys": sorted(KEYS)},
        door={"requests_per_minute": 100_000},
    )
    told: dict[str, str] = {}
    cloud_key = project.environment.pop("SPHERON_API_KEY")
    secret(project, WRONG_TOKEN, "pulumi-vllm:hfToken")
    for name, value in KEYS.items():
        secret(project, value, "--path", f"pulumi-vllm:keys.{name}")
    project.cloud.hub(auth=TOKEN)
    try:
        with traces.Processes() as processes:
            told["a wrong key"] = refused_by_the_cloud(project, cloud_key)
            told["a failed up"] = project.pulumi("up", "--yes", "--diff", check=False).stdout
            assert "the token was refused" in told["a failed up"]
            secret(project, TOKEN, "pulumi-vllm:hfToken")
            told["up"] = project.up()
            secrets = kept(project) | {"cloud key": cloud_key, "passphrase": PASSPHRASE, "new key": NEW_KEY}
            secrets |= {"wrong hub token": WRONG_TOKEN, "hub token": TOKEN, **KEYS}
            told |= turned_over(project, tmp_path)
            told["attacks"] = attacked(project)
            locked_in(project)
            only_the_door_is_open(project)
            hosts = on_the_host(project, secrets) | in_the_cloud(project)
            project.cloud.pass_minutes(30)
            told["destroy"] = project.destroy()
    finally:
        project.cloud.hub(auth="")
    texts = {f"output of {name}": text.encode() for name, text in told.items()} | hosts
    texts |= {f"{where} ({number})": line for number, (line, where) in enumerate(processes.seen.items())}
    texts |= traces.in_files(project.folder, "key") | in_the_cloud(project)
    assert len(processes.seen) > 100
    assert any(name.startswith("state/") for name in texts)
    assert traces.shown(secrets, texts) == []


def in_the_cloud(project):
    """What the cloud keeps: its log, records and user data. Not its accounts, nor the machines' own disks."""
    return traces.in_files(project.cloud.folder, "cloud.json", "upper", "work", "merged")


def secret(project, value, *name):
    """Set a secret as people should: its value on standard input, never among the arguments."""
    subprocess.run(
        ["pulumi", "--non-interactive", "config", "set", "--secret", *name],
        input=value, text=True, cwd=project.folder, env=project.environment, check=True, capture_output=True,
        timeout=60,
    )  # fmt: skip


def kept(project):
    """The secrets that the stack made for itself, out of its decrypted state."""
    shown = project.pulumi("stack", "export", "--show-secrets").stdout
    resources = json.loads(shown[shown.index("{") :])["deployment"]["resources"]

    def output(kind, name, part=""):
        (value,) = [r["outputs"][name] for r in resources if r["type"] == kind and part in r["urn"]]
        return json.loads(value["plaintext"])

    found = {
        "SSH key": output("vllm:spheron:SshKey", "privateKeyPem"),
        "CA key": output("vllm:index:Authority", "privateKey"),
        "TLS key": "-----BEGIN PRIVATE KEY-----"
        + output("vllm:index:Certificate", "pem").split("-----BEGIN PRIVATE KEY-----")[1],
        "gate token": output("vllm:index:ApiKey", "key", "gate"),
    }
    # The search itself: in a decrypted state all of them are found.
    assert len(traces.shown(found, {"the decrypted state": shown.encode()})) >= len(found)
    return found


def turned_over(project, tmp_path):
    """Somebody edits files with secrets, and a key gets a new value: no request fails, vLLM is the same process."""
    outputs, told = project.outputs(), {}
    ai, model, ca = (
        client(outputs, tmp_path),
        outputs["model"],
        ssl.create_default_context(cadata=outputs["ca_certificate"]),
    )
    before = project.on_host("systemctl show -P MainPID vllm.service haproxy.service")
    project.on_host(
        "echo hf_somebody_elses > /etc/pulumi-vllm/secrets/hf-token; echo abc other >> /etc/pulumi-vllm/door/keys.map"
    )
    told["preview with drift"] = project.pulumi("preview", "--diff").stdout
    assert "differs: secret" in told["preview with drift"]
    assert "somebody_elses" not in told["preview with drift"]
    secret(project, NEW_KEY, "--path", "pulumi-vllm:keys.team-a")
    over, served = threading.Event(), []

    def use():
        mine = ai.with_options(api_key=KEYS["team-b"])
        while not over.is_set():
            asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
            served.append(mine.chat.completions.create(model=model, **asked).choices[0].finish_reason)

    async def anew():
        data, host = attacks.request(KEYS["team-b"], "/v1/models", "GET", b""), address(outputs)
        while not over.is_set():
            reader, writer = await asyncio.open_connection(host, 443, ssl=ca)
            (answer,) = await exchange(reader, writer, data, 60)
            served.append(answer.status)

    users = [threading.Thread(target=use), threading.Thread(target=lambda: asyncio.run(anew()))]
    for user in users:
        user.start()
    try:
        wait_for(lambda: len(served) > 20, what="requests before the change")
        told["a new key"] = project.up()
        count = len(served)
        wait_for(lambda: len(served) > count + 20, what="requests after the change")
    finally:
        over.set()
        for user in users:
            user.join()
    assert set(served) <= {"length", "stop", 200}
    assert project.on_host("systemctl show -P MainPID vllm.service haproxy.service") == before
    statuses = [
        asyncio.run(asked(outputs, ca, attacks.request(key, "/v1/models", "GET", b"")))[0].status
        for key in (KEYS["team-a"], NEW_KEY)
    ]
    assert statuses == [401, 200]
    return told


def address(outputs):
    return outputs["connection"]["host"]


async def asked(outputs, ca, data):
    reader, writer = await asyncio.open_connection(address(outputs), 443, ssl=ca)
    return await exchange(reader, writer, data, 60)


def attacked(project):
    """The same attacks as on the plain HAProxy, on the machine's own; what it wrote down about them."""
    outputs = project.outputs()
    ca, tried = (
        ssl.create_default_context(cadata=outputs["ca_certificate"]),
        attacks.all_of(NEW_KEY, 16 * MIB),
    )

    async def run():
        return await asyncio.gather(*(asked(outputs, ca, one.data) for one in tried))

    wrong = []
    for attack, answers in zip(tried, asyncio.run(run()), strict=True):
        first = answers[0].status if answers else 400
        # The engine itself refuses a body that is no chat.
        right = {*attack.statuses, *((400, 404, 422) if attack.passes else ())}
        if first not in right or (first == 200 and not (attack.passes or "healthz" in attack.name)):
            wrong.append((attack.name, first))
    assert wrong == []
    rows = [
        json.loads(line)
        for line in project.on_host("journalctl -u haproxy -o cat --no-pager | grep '^{'").splitlines()
    ]
    forwarded = {
        f"{row['m']} {row['path']} HTTP/1.1"
        for row in rows
        if row["t_conn"] >= 0 and row["path"] != "/healthz"
    }
    assert forwarded <= attacks.ALLOWED
    return json.dumps(rows)


def locked_in(project):
    """The running engine has no way up and writes to its caches only; not even root could, where it stands."""
    said = project.on_host("""
        pid=$(systemctl show -P MainPID vllm.service)
        grep -E '^(Uid|NoNewPrivs|Seccomp|CapBnd):' /proc/$pid/status
        for place in /models/weights /opt/vllm /etc /usr/local /var/log /models/cache /var/lib/vllm; do
          nsenter -t "$pid" -m touch "$place/tried" 2>/dev/null && echo "wrote $place" && rm "$place/tried" || true
        done""")
    status = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert status["Uid"].split()[0] != "0"
    found = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapBnd")}
    assert found == {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16}
    wrote = [line.removeprefix("wrote ") for line in said.splitlines() if line.startswith("wrote ")]
    assert wrote == ["/models/cache", "/var/lib/vllm"]


def only_the_door_is_open(project):
    """From a second machine beside it every listening port is tried, on both families."""
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
    """Another machine of the same cloud, rented past the stack; gives a function that runs a script there."""
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


def on_the_host(project, secrets):
    """Journals and what cloud-init got; in files a secret stands only where it is read from, mode 0600."""
    marks = "\n".join(mark for secret in secrets.values() for mark in traces.marks(secret))
    found = set(project.on_host(f"{FILES}{marks}\nEND").split())
    assert found == HOLD
    assert set(project.on_host(f"stat -c %a:%U {' '.join(HOLD)}").split()) == {"600:root"}
    journal = project.on_host("journalctl --no-pager -o export").encode(errors="replace")
    given = project.on_host(
        "cat /var/lib/cloud/instance/user-data.txt /var/log/cloud-init*.log 2>/dev/null || true"
    )
    assert b"haproxy" in journal
    return {"the journal": journal, "cloud-init": given.encode()}


def refused_by_the_cloud(project, right):
    """The cloud refuses a key: the sentence does not hold it. Then the right one is set."""
    secret(project, "sai_pk_planted_wrong", "vllm:spheronApiKey")
    done = project.pulumi("preview", check=False)
    assert done.returncode != 0
    assert "the API key was not accepted" in done.stdout
    assert "planted_wrong" not in done.stdout
    secret(project, right, "vllm:spheronApiKey")
    return done.stdout
