"""The mocks that a consumer's unit tests use say as much as the provider does."""

import re
import subprocess
import sys
from pathlib import Path

import pulumi
from programs import block, run
from pulumi_vllm.component.mocks import OUTPUTS
from pulumi_vllm.provider.plugin.schema import RESOURCES

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

    monitor, seen = run(program)
    assert seen["big"] == "https://192.0.2.7/v1"
    ours = [one for one in monitor.requests.values() if one.type.startswith("vllm:") and one.custom]
    assert {"big-machine", "small-machine"} <= {one.name for one in ours}
    assert {one.provider.rpartition("::")[0].rpartition("::")[2] for one in ours} == {"account"}
    assert "sai_pk_planted" not in str(ours)


def test_the_unit_test_in_the_docs_passes_on_the_program_in_the_readme(tmp_path):
    root = Path(__file__).parents[2]
    for document, file in (("README.md", "shop.py"), ("docs/own-projects.md", "test_shop.py")):
        block = re.search(r"```python\n(.*?)```", (root / document).read_text(), re.DOTALL)
        (tmp_path / file).write_text(block[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout


def test_the_program_that_init_writes_runs(monkeypatch):
    import runpy

    import pulumi_vllm.cli

    values = {"server": block("local"), "keys": {"default": "sk-given"}}
    monkeypatch.setattr(pulumi.Config, "require_object", lambda _, key: values[key])
    monkeypatch.setattr(pulumi.Config, "get_object", lambda _, key: values.get(key))
    exported = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)

    def program():
        runpy.run_path(str(Path(pulumi_vllm.cli.__file__).with_name("starter") / "__main__.py"))
        return exported

    _, seen = run(program)
    assert seen["endpoint"] == "https://192.0.2.7/v1"
    assert seen["api_keys"] == {"default": "sk-given"}
