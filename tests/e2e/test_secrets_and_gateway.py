"""The life of a stack: no secret leaks, keys are rotated without failures, and only the gateway is open."""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import neighbour
import traces
from harness import PASSPHRASE, client, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
import attacks
import certificates
from rendered_gateway import exchange

KEYS = {"team-a": "sk-planted-first-0a1b2c3d4e5f", "team-b": "sk-planted-second-6a7b8c9d0e1f"}
NEW_KEY = "sk-planted-new-value-2a3b4c5d6e7f"
WRONG_TOKEN, TOKEN = "hf_PlantedWrongToken4711", "hf_PlantedRightToken0815"
MIB = 2**20
HOSTNAME = "llm.example.com"
SEARCHED = "/etc /var /run /root /home /tmp /usr/local /opt/vllm /models"
FILES = f"grep -rlF -f /dev/stdin {SEARCHED} 2>/dev/null <<'END' || true\n"
HOLD = {
    "/etc/pulumi-vllm/secrets/hf-token", "/etc/pulumi-vllm/secrets/readiness-token", "/etc/pulumi-vllm/gateway/tls.pem",
    "/var/lib/pulumi-vllm/ready.json",  # the certificate that a failed change of the hostname comes back to
}  # fmt: skip


def test_no_secret_leaks_keys_rotate_and_only_the_gateway_is_open(projects, tmp_path):
    project = projects(
        "fake",
        access={"allow": ["0.0.0.0/0", "::/0"], "keys": sorted(KEYS)},
        gateway={"requests_per_minute": 100_000, "streams_per_key": 512},
    )
    outputs_of: dict[str, str] = {}
    cloud_key = project.environment.pop("SPHERON_API_KEY")
    secret(project, WRONG_TOKEN, "pulumi-vllm:hfToken")
    for name, value in KEYS.items():
        secret(project, value, "--path", f"pulumi-vllm:keys.{name}")
    project.cloud.hub(auth=TOKEN)
    try:
        with traces.Processes() as processes:
            outputs_of["a wrong key"] = refused_by_the_cloud(project, cloud_key)
            outputs_of["a failed up"] = project.pulumi("up", "--yes", "--diff", check=False).stdout
            assert "the token was refused" in outputs_of["a failed up"]
            secret(project, TOKEN, "pulumi-vllm:hfToken")
            outputs_of["up"] = project.up()
            secrets = generated_secrets(project) | {
                "cloud key": cloud_key,
                "passphrase": PASSPHRASE,
                "new key": NEW_KEY,
            }
            secrets |= {"wrong hub token": WRONG_TOKEN, "hub token": TOKEN, **KEYS}
            root = certificates.issue("somebody else's CA")
            leaf = certificates.issue("gateway", [HOSTNAME, project.machine()[0]["address"]], root)
            secrets["given TLS key"] = certificates.key_pem(leaf[1])
            outputs_of |= rotate(project, tmp_path, certificates.pem(root[0]), leaf)
            outputs_of["attacks"] = attack(project, certificates.pem(root[0]))
            check_sandbox(project)
            check_what_the_engine_reaches(project)
            neighbour.only_the_gateway_is_open(project)
            hosts = on_the_host(project, secrets) | in_the_cloud(project)
            project.cloud.pass_minutes(30)
            outputs_of["destroy"] = project.destroy()
    finally:
        project.cloud.hub(auth="")
    texts = {f"output of {name}": text.encode() for name, text in outputs_of.items()} | hosts
    texts |= {f"{where} ({number})": line for number, (line, where) in enumerate(processes.observed.items())}
    texts |= traces.in_files(project.folder, "key") | in_the_cloud(project)
    assert len(processes.observed) > 100
    assert any(name.startswith("state/") for name in texts)
    assert traces.leaks(secrets, texts) == []


def in_the_cloud(project):
    """Return the files of the cloud: log, records and user data, without accounts and disks."""
    return traces.in_files(project.cloud.folder, "cloud.json", "upper", "work", "merged")


def secret(project, value, *name):
    """Set a secret through standard input, not through the arguments."""
    subprocess.run(
        ["pulumi", "--non-interactive", "config", "set", "--secret", *name],
        input=value, text=True, cwd=project.folder, env=project.environment, check=True, capture_output=True,
        timeout=60,
    )  # fmt: skip


def generated_secrets(project):
    """Return the secrets that the stack generated, from its decrypted state."""
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
        "readiness token": output("vllm:index:ApiKey", "key", "readiness"),
    }
    # Check the search itself: it finds all of them in the decrypted state.
    assert len(traces.leaks(found, {"the decrypted state": shown.encode()})) >= len(found)
    return found


def rotate(project, tmp_path, root, leaf):
    """Edit files with secrets, change a key and the certificate; no request may fail, and vLLM must not restart."""
    outputs, outputs_of = project.outputs(), {}
    both = outputs["ca_certificate"] + root
    ca, model = ssl.create_default_context(cadata=both), outputs["model"]
    ai = client(outputs | {"ca_certificate": both}, tmp_path)
    before = project.on_host("systemctl show -P MainPID vllm.service haproxy.service")
    project.on_host(
        "echo hf_somebody_elses > /etc/pulumi-vllm/secrets/hf-token;"
        "echo abc other >> /etc/pulumi-vllm/gateway/keys.map"
    )
    outputs_of["preview with drift"] = project.pulumi("preview", "--diff").stdout
    assert "differs: secret" in outputs_of["preview with drift"]
    assert "somebody_elses" not in outputs_of["preview with drift"]
    secret(project, NEW_KEY, "--path", "pulumi-vllm:keys.team-a")
    secret(project, certificates.key_pem(leaf[1]), "pulumi-vllm:tlsPrivateKey")
    named = project.block | {"access": project.block["access"] | {"hostname": HOSTNAME}}
    project.write(named, **{"pulumi-vllm:tlsCertificate": certificates.pem(leaf[0])})
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
        outputs_of["a new key"] = project.up()
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
    known = ssl.create_default_context(cadata=root)
    assert asyncio.run(asked(outputs, known, attacks.request(NEW_KEY), HOSTNAME)), (
        "the custom certificate is not shown"
    )
    now = project.outputs()
    assert now["endpoint"] == f"https://{HOSTNAME}/v1"
    assert now["evidence"]["certificate_expires"] == str(leaf[0].not_valid_after_utc.date())
    project.on_host("systemctl start vllm-readiness.service")
    return outputs_of


def address(outputs):
    return outputs["connection"]["host"]


async def asked(outputs, ca, data, name=None):
    where = address(outputs)
    reader, writer = await asyncio.open_connection(where, 443, ssl=ca, server_hostname=name or where)
    return await exchange(reader, writer, data, 60)


def attack(project, root):
    """Run the attacks of the HAProxy tests against the host; return what it logged about them."""
    outputs = project.outputs()
    ca, tried = ssl.create_default_context(cadata=root), attacks.all_of(NEW_KEY, 16 * MIB)

    async def run():
        return await asyncio.gather(*(asked(outputs, ca, one.data) for one in tried))

    wrong = []
    for attack, answers in zip(tried, asyncio.run(run()), strict=True):
        first = answers[0].status if answers else 400
        # The engine itself refuses a body that is not a chat request.
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


ENGINE_CONNECTS = """
cat > /run/connects.py <<'PROGRAM'
import errno, socket, sys
def tried(address, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as link:
        link.settimeout(5)
        try:
            link.connect((address, port))
            return "connected"
        except OSError as error:
            return errno.errorcode.get(error.errno, type(error).__name__)
for where in sys.argv[1:]:
    address, _, port = where.rpartition("@")
    print(where, tried(address, int(port)))
PROGRAM
own=$(ip -o -4 route get 192.0.2.1 | sed 's/.* src \\([0-9.]*\\).*/\\1/')
python3 -c "
import socket, time
ours = socket.create_server(('127.0.0.1', 40123)), socket.create_server(('0.0.0.0', 40124))
time.sleep(20)" &
sleep 1
for user in root vllm; do
  echo "$user:"
  setpriv --reuid="$user" --clear-groups python3 /run/connects.py 127.0.0.1@443 "$own@443" 127.0.0.1@22 \
    127.0.0.1@8000 127.0.0.1@8405 169.254.169.254@80 "$own@40124" 127.0.0.1@40123
done
kill %1; wait || true; rm /run/connects.py
"""


def check_what_the_engine_reaches(project):
    """Check that neither services of the host nor private addresses answer the engine's user. They answer root."""
    root, _, vllm = project.on_host(ENGINE_CONNECTS).partition("vllm:\n")
    reached = {
        user: dict(line.split() for line in text.splitlines() if "@" in line)
        for user, text in {"root": root, "vllm": vllm}.items()
    }
    for where, result in reached["vllm"].items():
        ephemeral = where.endswith(("@40123", "@40124"))
        assert result == ("connected" if ephemeral else "ECONNREFUSED"), (where, result)
    silent = {where for where, result in reached["root"].items() if result != "connected"}
    assert silent <= {"169.254.169.254@80"}, reached["root"]


def check_sandbox(project):
    """Check that the engine cannot gain privileges, writes only to its caches, and cannot create links there."""
    output = project.on_host("""
        pid=$(systemctl show -P MainPID vllm.service)
        grep -E '^(Uid|NoNewPrivs|Seccomp|CapBnd):' /proc/$pid/status
        engine=$(echo /models/cache/*)
        for place in /models/weights /opt/vllm /etc /usr/local /var/log /models/cache "$engine" /var/lib/vllm; do
          nsenter -t "$pid" -m touch "$place/tried" 2>/dev/null && echo "wrote $place" && rm "$place/tried" || true
        done
        weights=$(find /models/weights -type f | head -n 1)
        nsenter -t "$pid" -m ln "$weights" "$engine/tried" 2>&1 | sed 's/.*: /link: /' || true""")
    status = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
    assert status["Uid"].split()[0] != "0"
    found = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapBnd")}
    assert found == {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16}
    wrote = [line.removeprefix("wrote ") for line in output.splitlines() if line.startswith("wrote ")]
    assert wrote[0].startswith("/models/cache/")
    assert wrote[1:] == ["/var/lib/vllm"]
    assert status["link"].strip() == "Invalid cross-device link"


def on_the_host(project, secrets):
    """Return journals and cloud-init data; check that files with secrets are the expected ones, with mode 0600."""
    marks = "\n".join(mark for secret in secrets.values() for mark in traces.signatures(secret))
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
    """Check that the error for a refused key does not contain the key, then set the right one."""
    secret(project, "sai_pk_planted_wrong", "vllm:spheronApiKey")
    done = project.pulumi("preview", check=False)
    assert done.returncode != 0
    assert "the API key was not accepted" in done.stdout
    assert "planted_wrong" not in done.stdout
    secret(project, right, "vllm:spheronApiKey")
    return done.stdout
