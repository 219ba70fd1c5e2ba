"""A program warns with the command to run when the engine has no plugin, and is silent otherwise."""

import sys
import threading
from pathlib import Path

import pulumi
import pytest
from pulumi_vllm.component import plugin_discovery
from pulumi_vllm.provider.plugin import construct

OWN = Path(sys.executable).parent
PROJECT = "name: shop\nruntime:\n  name: python\n  options:\n    virtualenv: ../.venv\nmain: program\n"


@pytest.fixture
def warned(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: warnings.append(message))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PULUMI_DEBUG_PROVIDERS", raising=False)
    monkeypatch.setattr(plugin_discovery, "inside_plugin", threading.Event())
    # The environment of the program, which the engine does not have on its PATH.
    monkeypatch.setenv("PATH", f"{OWN}:/usr/bin:/bin")
    (tmp_path / "program").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path / "program")
    return warnings


def test_a_project_without_the_plugin_gets_a_warning(warned, tmp_path):
    plugin_discovery.warn_if_hidden()
    (warning,) = warned
    assert "may not find it" in warning
    assert warning.startswith(f"{tmp_path}/Pulumi.yaml: names no plugin vllm")
    assert warning.endswith(f"run in {tmp_path}: pulumi-vllm init")


@pytest.mark.parametrize(
    "lines",
    [
        "config:\n  vllm:spheronUrl: http://127.0.0.1\n",
        "plugins:\n  providers:\n    - name: vllm-prod\n",
        "packages:\n  other: vllm\n",
        "description: |\n  name: vllm\n",
    ],
)
def test_similar_text_is_not_the_plugins_entry(warned, tmp_path, lines):
    (tmp_path / "Pulumi.yaml").write_text(PROJECT.replace("shop", "vllm-prod") + lines)
    plugin_discovery.warn_if_hidden()
    assert len(warned) == 1


@pytest.mark.parametrize(
    "lines",
    ["plugins:\n  providers:\n    - name: vllm\n      path: ./provider\n", "packages:\n  vllm: ./provider\n"],
)
def test_a_project_with_the_plugin_gets_no_warning(warned, tmp_path, lines):
    with (tmp_path / "Pulumi.yaml").open("a") as file:
        file.write(lines)
    plugin_discovery.warn_if_hidden()
    assert warned == []


@pytest.mark.parametrize("where", ["home", "path", "debug", "no project"])
def test_an_engine_with_the_plugin_elsewhere_gets_no_warning(warned, tmp_path, monkeypatch, where):
    program = tmp_path / "bin" / "pulumi-resource-vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    if where == "home":
        (tmp_path / "home/plugins/resource-vllm-v0.1.0").mkdir(parents=True)
    elif where == "path":
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    elif where == "debug":
        monkeypatch.setenv("PULUMI_DEBUG_PROVIDERS", "aws:1,vllm:2")
    else:
        (tmp_path / "Pulumi.yaml").unlink()
    plugin_discovery.warn_if_hidden()
    assert warned == []


@pytest.mark.parametrize("activated", [True, False])
def test_an_environment_on_the_engines_path_gets_no_warning(warned, tmp_path, monkeypatch, activated):
    assert (OWN / "pulumi-resource-vllm").exists()
    if activated:
        monkeypatch.setenv("PATH", str(OWN), prepend=":")
    else:  # the project has no environment, so the one on PATH is the engine's
        (tmp_path / "Pulumi.yaml").write_text("name: shop\nruntime: python\nmain: program\n")
    plugin_discovery.warn_if_hidden()
    assert warned == []


def test_the_plugin_itself_gives_no_warning(warned):
    construct._component_provider.__wrapped__()
    plugin_discovery.warn_if_hidden()
    assert warned == []
