"""The programs in examples/, with Pulumi's mocks and the real packages of the other providers."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
# Too large for every run of the tests: 27 MB of wheels, unpacked 200 MB.
PACKAGES = {"aws": "pulumi-aws==7.51.1", "gcp": "pulumi-gcp==10.2.0"}
RUN = """
    import asyncio, json, runpy, sys
    import pulumi
    from pulumi_vllm.component.mocks import Mocks

    class Cloud(Mocks):
        def new_resource(self, args):
            name, outputs = super().new_resource(args)
            self.made[f"{args.typ} {args.name}"] = self.made[args.name]  # two resources may have one name
            if args.typ == "gcp:compute/instance:Instance":
                outputs["networkInterfaces"] = [{"accessConfigs": [{"natIp": "203.0.113.7"}]}]
            return name, outputs | {"publicIp": "203.0.113.7", "instanceId": "i-1", "keyName": "llm"}

    asyncio.set_event_loop(asyncio.new_event_loop())
    made = Cloud()
    pulumi.runtime.set_mocks(made, preview=False, stack="unit", project="unit")
    pulumi.runtime.set_all_config(json.loads(sys.argv[2]))

    @pulumi.runtime.test
    def program():
        runpy.run_path(sys.argv[1], run_name="__main__")

    program()
    print(json.dumps({name: one for name, one in made.made.items()}, default=str))
"""


def key_file(folder: Path) -> Path:
    file = folder / "key"
    file.write_text("PRIVATE")
    file.with_suffix(".pub").write_text("ssh-ed25519 AAAA somebody\n")
    return file


def declared(program: str, config: dict, packages: Path | None = None) -> dict:
    environment = os.environ | {"PYTHONPATH": str(packages or "")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN), str(EXAMPLES / program / "__main__.py"), json_text(config)],
        text=True, capture_output=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout.splitlines()[-1])


def json_text(config: dict) -> str:
    return json.dumps(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    )


def test_bare_metal(tmp_path):
    stack = yaml.safe_load((EXAMPLES / "bare-metal" / "Pulumi.lab.yaml").read_text())["config"]
    stack["pulumi-vllm:host"]["private_key_file"] = str(key_file(tmp_path))
    stack["pulumi-vllm:server"]["access"]["allow"] = ["9.9.9.0/24"]
    made = declared("bare-metal", stack)
    assert made["llm-machine"]["address"] == "203.0.113.7"
    assert made["llm-machine"]["storePath"] == "/data/llm"


@pytest.fixture(scope="module")
def packages():
    """Install the other providers' packages into the cache, once."""
    folder = Path.home() / ".cache" / "pulumi-vllm" / "examples" / "-".join(sorted(PACKAGES.values()))
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, *PACKAGES.values()], check=True, timeout=600)
        (folder / "complete").touch()
    return folder


@pytest.mark.all
@pytest.mark.parametrize(
    ("cloud", "store"),
    [("aws", {"storePath": "/data/llm"}), ("gcp", {"storeDevice": "/dev/disk/by-id/google-llm"})],
)
def test_a_machine_of_another_provider(cloud, store, packages, tmp_path):
    config = {
        "allow": ["9.9.9.0/24"], "operator": "9.9.9.9/32", "privateKeyFile": str(key_file(tmp_path)), "zone": "z1",
        "ami": "ami-1", "image": "ubuntu-os-cloud/ubuntu-2404", "usdPerHour": 55.0,
    }  # fmt: skip
    made = declared(cloud, {f"unit:{key}": value for key, value in config.items()}, packages)
    types = {one["type"] for one in made.values()}
    assert {"aws": "aws:ec2/instance:Instance", "gcp": "gcp:compute/instance:Instance"}[cloud] in types
    machine = made["llm-machine"]
    assert machine["type"] == "vllm:host:Machine"
    assert machine["address"] == "203.0.113.7"
    assert machine["triggers"] in (["llm-id"], ["i-1"])
    assert store.items() <= machine.items()
    assert "vllm:spheron:Instance" not in types
