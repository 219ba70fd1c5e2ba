"""A stack under test, with the real Pulumi engine, its own state and home, on a local cloud."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from pulumi_vllm_local.images import apt_sources

REPOSITORY = Path(__file__).parents[2]
OLDEST_PYTHON = 10  # 3.10, of Ubuntu 22.04
# Regions of the local cloud: one of the provider with shares, one of the provider with block volumes.
REGIONS = {"share": "US Central 1", "block": "Finland 3"}
PASSPHRASE = "passphrase of the tests"


def other_releases(*, usable: bool) -> list[str]:
    """Return the releases that machines can have beside this computer's, with a Python that is new enough, or not."""
    this = apt_sources.suite(Path("/etc/os-release").read_text())
    pythons = apt_sources.RELEASES[this.distribution].items()
    return [
        release
        for release, python in pythons
        if release != this.codename and (int(python.partition(".")[2]) >= OLDEST_PYTHON) == usable
    ]


class LocalCloud:
    """A local cloud in its own folder, driven by `pulumi-vllm local`."""

    def __init__(self, folder: Path, engine: str, release: str = ""):
        self.folder, self.engine, self.release = folder, engine, release
        self.environment: dict[str, str] = {}

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PULUMI_VLLM_LOCAL_DIR": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-m", "pulumi_vllm.cli", "local", *arguments],
            env=env,
            text=True,
            capture_output=True,
            check=False,
            timeout=1500,
        )
        if check and done.returncode:
            raise AssertionError(f"local {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self) -> None:
        release = ("--release", self.release) if self.release else ()
        printed = self.command("up", "--engine", self.engine, *release).stdout
        lines = [line.removeprefix("export ") for line in printed.splitlines() if line.startswith("export ")]
        self.environment = {
            name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)
        }

    def down(self) -> None:
        self.command("down", "--purge")

    def api(self, path: str, method: str = "GET", body: dict | None = None):
        import requests

        answer = requests.request(
            method,
            self.environment["SPHERON_URL"] + path,
            timeout=30,
            json=body,
            headers={"Authorization": f"Bearer {self.environment['SPHERON_API_KEY']}"},
        )
        answer.raise_for_status()
        return answer.json()

    def hub(self, method: str = "POST", path: str = "/_fault", **values: object):
        """Order faults of the model hub (an empty value clears one), or read its log."""
        import requests

        answer = requests.request(
            method,
            self.environment["PULUMI_VLLM_LOCAL_HUB"] + path,
            params={k: str(v) for k, v in values.items()},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()

    def pass_minutes(self, minutes: float) -> None:
        """Advance the virtual clock; the minimum run time of a machine is 20 minutes."""
        self.api("/_sim/advance", "POST", {"seconds": minutes * 60})

    def machines(self) -> list[dict]:
        found = self.api("/api/deployments?status=active")
        return found if isinstance(found, list) else found.get("deployments") or found["data"]


class Project:
    """A folder whose Pulumi.yaml runs the program of the repository, with one stack."""

    def __init__(
        self, folder: Path, cloud: LocalCloud, block: dict, stack: str = "local", main: Path = REPOSITORY
    ):
        self.folder, self.cloud, self.stack, self.block = folder, cloud, stack, block
        folder.mkdir(parents=True)
        (folder / "state").mkdir()
        self.write(block)
        project = {
            "name": "pulumi-vllm",
            "main": str(main),
            "runtime": {"name": "python", "options": {"virtualenv": str(REPOSITORY / ".venv")}},
            "options": {"refresh": "always"},
            "plugins": {"providers": [{"name": "vllm", "path": str(REPOSITORY / "provider")}]},
        }
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        self.environment = (
            os.environ
            | cloud.environment
            | {
                "PULUMI_HOME": str(folder / "home"),
                "PULUMI_BACKEND_URL": f"file://{folder}/state",
                "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
                "PULUMI_SKIP_UPDATE_CHECK": "1",
                "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
                "PULUMI_VLLM_VENV": str(REPOSITORY / ".venv"),
                "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "1",
            }
        )
        self.pulumi("stack", "init", stack)

    def write(self, block: dict, **more: object) -> None:
        """Write the configuration of the stack, and keep what the engine wrote into the file."""
        file = self.folder / f"Pulumi.{self.stack}.yaml"
        document = yaml.safe_load(file.read_text()) if file.exists() else {}
        document.setdefault("config", {})["pulumi-vllm:server"] = block
        document["config"] |= more
        file.write_text(yaml.safe_dump(document))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the engine in its own process group."""
        return subprocess.Popen(
            ["pulumi", "--non-interactive", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def pulumi(
        self, *arguments: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            raise AssertionError(f"pulumi {arguments} still ran after {timeout} s:\n{out}") from None
        if check and process.returncode:
            raise AssertionError(f"pulumi {arguments}: {process.returncode}\n{out}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, "")

    def up(self, **kwargs) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", **kwargs).stdout

    def destroy(self, **kwargs) -> str:
        return self.pulumi("destroy", "--yes", "--skip-preview", **kwargs).stdout

    def changes(self) -> dict[str, int]:
        """Return the steps of a preview, counted by kind."""
        shown = self.pulumi("preview", "--json").stdout
        return json.loads(shown[shown.index("{") :])["changeSummary"]

    def outputs(self) -> dict:
        shown = self.pulumi("stack", "output", "--json", "--show-secrets").stdout
        return json.loads(shown[shown.index("{") :])

    def resources(self) -> list[dict]:
        shown = self.pulumi("stack", "export").stdout
        return json.loads(shown[shown.index("{") :])["deployment"].get("resources", [])

    def machine_id(self) -> str:
        (found,) = [r["id"] for r in self.resources() if r["type"] == "vllm:spheron:Instance"]
        return found

    def machine(self) -> tuple[dict, str]:
        """Return the outputs of the machine and its key from state, also after a failed `up`."""
        shown = self.pulumi("stack", "export", "--show-secrets").stdout
        found = json.loads(shown[shown.index("{") :])["deployment"].get("resources", [])
        (machine,) = [r["outputs"] for r in found if r["type"] == "vllm:spheron:Instance"]
        (key,) = [r["outputs"]["privateKeyPem"] for r in found if r["type"] == "vllm:spheron:SshKey"]
        plain = key["plaintext"] if isinstance(key, dict) else key
        return machine, json.loads(plain) if plain.startswith('"') else plain

    def on_host(self, script: str, *, check: bool = True) -> str:
        """Run a script on the host as root, over SSH."""
        machine, pem = self.machine()
        key = self.folder / "key"
        key.touch(0o600)
        key.write_text(pem)
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]
        where = ["-p", str(int(machine["port"])), f"{machine['user']}@{machine['address']}"]
        done = subprocess.run(
            ["ssh", "-q", "-i", str(key), *options, *where, "sudo -n bash -eu"],
            input=script,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"on the host: {done.returncode}\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `pulumi-vllm` in the folder of the project."""
        return subprocess.run(
            [sys.executable, "-m", "pulumi_vllm.cli", *words],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def sweep(self) -> subprocess.CompletedProcess[str]:
        return self.cli("sweep", "--json")


def block(**more) -> dict:
    """Return the smallest stack: the tiny model on a machine without a GPU."""
    base = yaml.safe_load((REPOSITORY / "stacks" / "Pulumi.local.yaml").read_text())["config"][
        "pulumi-vllm:server"
    ]
    machine = base["machine"] | more.pop("machine", {})
    return base | more | {"machine": machine}


CLIENTS: list = []


def close_clients() -> None:
    """Close all clients; an open connection would be a warning, which pytest turns into an error."""
    while CLIENTS:
        CLIENTS.pop().close()


def client(outputs: dict, folder: Path):
    """Return an OpenAI client that trusts the CA of the gateway."""
    import httpx2 as httpx
    import openai

    ca = folder / "ca.pem"
    ca.write_text(outputs["ca_certificate"])
    import ssl

    context = ssl.create_default_context(cafile=str(ca))
    made = openai.OpenAI(
        base_url=outputs["endpoint"],
        api_key=outputs["api_key"],
        max_retries=0,
        timeout=120,
        http_client=httpx.Client(verify=context),
    )
    CLIENTS.append(made)
    return made


def answers(project: Project, folder: Path, timeout_s: float = 5) -> bool:
    """Whether a chat through the gateway is answered."""
    import openai

    outputs = project.outputs()
    try:
        chat = client(outputs, folder).chat.completions.create(
            model=outputs["model"],
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=5,
            timeout=timeout_s,
        )
    except openai.APIError:
        return False
    return bool(chat.choices[0].message.content)


def wait_for(condition, timeout: float = 60, what: str = "condition"):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"no {what} after {timeout} s")


def chat_long(ai, model, tokens):
    return ai.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Go on."}],
        stream=True,
        max_tokens=tokens,
        extra_body={"ignore_eos": True},
    )


def shipped(stack: str) -> dict:
    """Return a shipped stack file, with only the allow-list changed."""
    text = (REPOSITORY / "stacks" / f"Pulumi.{stack}.yaml").read_text()
    block = yaml.safe_load(text)["config"]["pulumi-vllm:server"]
    return {**block, "access": {**block["access"], "allow": ["0.0.0.0/0", "::/0"]}}


def refused(project, *words: str) -> str:
    """Check that `up` fails with one error that contains the words, and that the machine stays in state."""
    done = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert done.returncode != 0, done.stdout
    for word in words:
        assert word in done.stdout, f"{word!r} is not in\n{done.stdout}"
    assert "Traceback" not in done.stdout
    errors = re.findall(
        r"^ *error: (?!update failed|resource .* was not successfully).*$", done.stdout, re.MULTILINE
    )
    assert len(set(errors)) == 1, errors
    ours = [m for m in project.cloud.machines() if m["name"].startswith(f"{project.stack}-")]
    assert [m["id"] for m in ours] == [project.machine_id()]
    return done.stdout
