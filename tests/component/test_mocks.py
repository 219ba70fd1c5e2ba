"""The mocks for users' unit tests, and the programs in README, docs and the starter."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pulumi
import pulumi_vllm.cli
import pytest
from mocked_programs import block, run
from pulumi_vllm.component import stack_config
from pulumi_vllm.component.mocks import OUTPUTS
from pulumi_vllm.provider.plugin.package_schema import RESOURCES

STARTER = Path(pulumi_vllm.cli.__file__).with_name("starter") / "__main__.py"
KINDS = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}


def test_every_output_of_every_resource_has_a_value_of_its_type():
    assert OUTPUTS.keys() == RESOURCES.keys()
    for token, resource in RESOURCES.items():
        assert OUTPUTS[token].keys() == resource.outputs.keys(), token
        for name, value in OUTPUTS[token].items():
            assert isinstance(value, KINDS[resource.outputs[name].type]), f"{token}.{name}"


def test_two_servers_and_an_explicit_provider_in_one_program():
    from pulumi_vllm import Provider, Server

    def program():
        account = Provider("account", spheron_api_key="sai_pk_planted", spheron_url="http://127.0.0.1:9")
        opts = pulumi.ResourceOptions(provider=account)
        big = Server("big", {"server": block()}, opts)
        small = Server("small", {"server": block("spheron-h100-1x-nvfp4")}, opts)
        return {"big": big.endpoint, "small": small.plan}

    monitor, outputs = run(program)
    assert outputs["big"] == "https://192.0.2.7/v1"
    ours = [one for one in monitor.requests.values() if one.type.startswith("vllm:") and one.custom]
    assert {"big-machine", "small-machine"} <= {one.name for one in ours}
    assert {one.provider.rpartition("::")[0].rpartition("::")[2] for one in ours} == {"account"}
    assert "sai_pk_planted" not in str(ours)


def test_the_unit_test_in_the_docs_passes_on_the_program_in_the_readme(tmp_path):
    root = Path(__file__).parents[2]
    for document, file in (("README.md", "shop.py"), ("docs/how-to/use-in-your-project.md", "test_shop.py")):
        block = re.search(r"```python\n(.*?)```", (root / document).read_text(), re.DOTALL)
        (tmp_path / file).write_text(block[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout


EXPORTS = {
    "endpoint", "model", "ca_certificate", "api_key", "api_keys", "usd_per_hour", "evidence", "connection",
    "plan", "memory", "flags", "usd_per_million_output_tokens", "usd_per_million_load", "gateway",
}  # fmt: skip


def run_starter(monkeypatch, config):
    """Run the program that `init` writes, with this configuration; return its exports."""
    monkeypatch.setattr(pulumi.Config, "get_object", lambda _, key: config.get(key))
    monkeypatch.setattr(pulumi.Config, "get_secret", lambda _, key: config.get(key))
    monkeypatch.setattr(pulumi.Config, "get", lambda _, key: config.get(key))
    exported = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)

    def program():
        runpy.run_path(str(STARTER))
        return exported

    monitor, outputs = run(program)
    return monitor.mocks.made, outputs


def test_the_starter_is_the_program_of_this_repository():
    assert STARTER.read_text() == (Path(__file__).parents[2] / "__main__.py").read_text()


def test_the_starter_declares_the_server_and_exports_its_outputs(monkeypatch):
    made, outputs = run_starter(monkeypatch, {"server": block("local"), "keys": {"default": "sk-given"}})
    assert outputs.keys() == EXPORTS
    assert outputs["endpoint"] == "https://192.0.2.7/v1"
    assert outputs["api_keys"] == {"default": "sk-given"}
    assert outputs["api_key"] == "sk-given"
    assert "server-certificate" in made


def test_the_starter_passes_the_token_and_the_custom_certificate_on(monkeypatch):
    named = block("local") | {"access": block("local")["access"] | {"hostname": "llm.example.com"}}
    config = {"server": named, "hfToken": "hf_token", "tlsCertificate": "PEM", "tlsPrivateKey": "KEY"}
    made, _ = run_starter(monkeypatch, config)
    assert made["server-custom-certificate"]["certificate"] == "PEM"
    assert stack_config.read_args()["hf_token"] == "hf_token"


def test_a_stack_without_a_block_is_an_error_that_names_the_known_stacks(monkeypatch, tmp_path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/Pulumi.units.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pulumi.RunError, match=r"stack unit: no pulumi-vllm:server .*did you mean units\?"):
        run_starter(monkeypatch, {})


def test_a_contradicting_stack_name_is_reported_with_every_other_error(monkeypatch):
    monkeypatch.setattr(pulumi, "get_stack", lambda: "spheron-h100-2x-fp8")
    with pytest.raises(pulumi.RunError) as caught:
        run_starter(monkeypatch, {"server": block("spheron-h200-2x-fp8") | {"storage": "a lot"}})
    first, *others = str(caught.value).splitlines()
    assert first.startswith("server.machine.gpu: is H200, but the stack's name spheron-h100-2x-fp8 says h100")
    assert any(line.startswith("server.storage: ") for line in others)
