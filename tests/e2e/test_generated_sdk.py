"""The Python SDK that is generated from the schema can be installed beside the plugin's own distribution."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import REPOSITORY

GENERATOR = Path(__file__).with_name("sdk_generator")
PLUGIN = REPOSITORY / "provider" / "pulumi-resource-vllm"


@pytest.fixture(scope="module")
def sdk(tmp_path_factory) -> Path:
    """The SDK, made by the generator of the pinned engine: the language host in the cache has none."""
    go, folder = shutil.which("go"), tmp_path_factory.mktemp("sdk")
    if go is None:
        pytest.skip("no Go to build the generator with")
    options = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
    }
    subprocess.run(
        [go, "build", "-o", folder / "generate", "."], cwd=GENERATOR, env=os.environ | options, check=True
    )
    schema = subprocess.run(
        ["pulumi", "package", "get-schema", PLUGIN], check=True, capture_output=True, text=True
    ).stdout
    (folder / "schema.json").write_text(schema)
    subprocess.run([folder / "generate", folder / "schema.json", folder / "python"], check=True)
    return folder / "python"


@pytest.mark.all
def test_the_sdk_and_the_plugin_are_installed_together(sdk, tmp_path):
    environment = tmp_path / "venv"
    python, plugin = environment / "bin/python", environment / "bin/pulumi-resource-vllm"
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in tracked:  # a build writes into the folder that it builds from
        if (REPOSITORY / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    subprocess.run(["uv", "venv", "--quiet", environment], check=True)
    for distribution in (source, sdk):
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, distribution], check=True)
        assert plugin.exists()
    listed = subprocess.run(
        ["uv", "pip", "list", "--format", "json", "--python", python],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert {"pulumi-vllm", "pulumi-vllm-sdk"} <= {one["name"] for one in json.loads(listed)}
    both = "import pulumi_vllm_sdk, pulumi_vllm; print(pulumi_vllm_sdk.Server.__name__, pulumi_vllm.Server.__name__)"
    shown = subprocess.run([python, "-c", both], check=False, capture_output=True, text=True)
    assert shown.stdout.split() == ["Server", "Server"], shown.stderr
