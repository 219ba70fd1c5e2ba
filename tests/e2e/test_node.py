"""The component in a JavaScript program, through Construct: the same resources, outputs and errors."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from consumer import Consumer
from harness import REGIONS, REPOSITORY, block

PROGRAM = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def language_host() -> Path:
    """Return the folder of pulumi-language-nodejs: from PATH, or built from pinned Go modules and cached (13 s)."""
    if there := shutil.which("pulumi-language-nodejs"):
        return Path(there).parent
    go, source = shutil.which("go"), Path(__file__).with_name("nodejs_host")
    if go is None:
        pytest.skip("no pulumi-language-nodejs on PATH, and no Go to build it with")
    pinned = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(source.iterdir()))).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "pulumi-vllm" / "nodejs" / pinned
    if not (folder / "pulumi-language-nodejs").exists():
        package = "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs"
        options = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
        made = folder / f"making-{os.getpid()}"
        subprocess.run([go, "build", "-o", made, package], cwd=source, env=os.environ | options, check=True)
        made.rename(folder / "pulumi-language-nodejs")
    return folder


@pytest.fixture
def project(clouds, place, language_host):
    if shutil.which("npm") is None:
        pytest.skip("no npm to install Pulumi's SDK for Node with")
    cloud, folder = clouds("fake"), place / "shop"
    shutil.copytree(PROGRAM, folder)
    subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=folder, check=True)
    (folder / "Pulumi.yaml").write_text("name: shop\nruntime: nodejs\n")
    subprocess.run([sys.executable, "-m", "pulumi_vllm.cli", "init", folder], check=True, capture_output=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    made = Consumer(
        folder, "local", PULUMI_VLLM_LOCAL_HUB=cloud.environment["PULUMI_VLLM_LOCAL_HUB"],
        ACCOUNT_KEY=cloud.environment["SPHERON_API_KEY"], ACCOUNT_URL=cloud.environment["SPHERON_URL"],
        PATH=f"{language_host}:{os.environ['PATH']}",
        TMPDIR=str(place),  # ts-node and the language host leave folders there
    )  # fmt: skip
    made.pulumi("stack", "init", "local")
    yield made
    cloud.pass_minutes(30)
    made.destroy()


def configure(project, **more) -> None:
    file = project.folder / "Pulumi.local.yaml"
    document = yaml.safe_load(file.read_text())
    access = {"allow": ["0.0.0.0/0", "::/0"], "keys": ["given", "made"]}
    document["config"] = {
        "pulumi-vllm:server": block(access=access, **more),
        "pulumi-vllm:regions": REGIONS,
    }
    file.write_text(yaml.safe_dump(document))


@pytest.mark.all
def test_two_servers_of_a_javascript_program(project):
    configure(project, contxt="2Ki")
    refused = project.pulumi("preview", check=False)
    assert refused.returncode != 0
    assert "'block' has a problem: server.contxt: unknown key; did you mean context?" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert 'File "' not in refused.stdout

    configure(project)
    project.up()
    outputs = project.outputs()
    assert len({outputs[name]["endpoint"] for name in REGIONS}) == 2
    for name in REGIONS:
        assert outputs[name]["apiKeys"]["given"] == f"sk-of-{name}"
        assert outputs[name]["apiKeys"]["made"].startswith("sk-")
        assert outputs[name]["usdPerHour"] > 0
    assert "sk-of-" not in project.pulumi("stack", "export").stdout
    names = {one["urn"].rpartition("::")[2] for one in project.resources()}
    assert {f"{name}-key-made" for name in REGIONS} <= names
    assert not {f"{name}-key-given" for name in REGIONS} & names, (
        "a secret beside it does not hide which keys are given"
    )
    assert set(project.changes()) == {"same"}
