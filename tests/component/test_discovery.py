"""A program says what to type where nothing tells the engine of the plugin, and is silent elsewhere."""

import sys
import threading
from pathlib import Path

import pulumi
import pytest
from pulumi_vllm.component import discovery
from pulumi_vllm.provider.plugin import construct

OWN = Path(sys.executable).parent
PROJECT = "name: shop\nruntime:\n  name: python\n  options:\n    virtualenv: ../.venv\nmain: program\n"


@pytest.fixture
def warned(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: told.append(message))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PULUMI_DEBUG_PROVIDERS", raising=False)
    monkeypatch.setattr(discovery, "inside_plugin", threading.Event())
    # The environment of the program, which the engine does not see: its launcher is no help.
    monkeypatch.setenv("PATH", f"{OWN}:/usr/bin:/bin")
    (tmp_path / "program").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path / "program")
    return told


def test_a_project_without_the_plugin_is_told_what_to_type(warned, tmp_path):
    discovery.warn_if_hidden()
    (said,) = warned
    assert "may not find it" in said
    assert said.startswith(f"{tmp_path}/Pulumi.yaml: names no plugin vllm")
    assert said.endswith(f"run in {tmp_path}: pulumi-vllm init")


@pytest.mark.parametrize(
    "lines",
    [
        "config:\n  vllm:spheronUrl: http://127.0.0.1\n",
        "plugins:\n  providers:\n    - name: vllm-prod\n",
        "packages:\n  other: vllm\n",
        "description: |\n  name: vllm\n",
    ],
)
def test_what_only_looks_like_its_name_is_not(warned, tmp_path, lines):
    (tmp_path / "Pulumi.yaml").write_text(PROJECT.replace("shop", "vllm-prod") + lines)
    discovery.warn_if_hidden()
    assert len(warned) == 1


@pytest.mark.parametrize(
    "lines",
    ["plugins:\n  providers:\n    - name: vllm\n      path: ./provider\n", "packages:\n  vllm: ./provider\n"],
)
def test_a_project_that_names_it_is_not(warned, tmp_path, lines):
    with (tmp_path / "Pulumi.yaml").open("a") as file:
        file.write(lines)
    discovery.warn_if_hidden()
    assert warned == []


@pytest.mark.parametrize("where", ["home", "path", "debug", "no project"])
def test_an_engine_that_knows_it_by_another_way_is_left_alone(warned, tmp_path, monkeypatch, where):
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
    discovery.warn_if_hidden()
    assert warned == []


@pytest.mark.parametrize("activated", [True, False])
def test_an_environment_on_the_engines_path_too_is_a_way(warned, tmp_path, monkeypatch, activated):
    assert (OWN / "pulumi-resource-vllm").exists()
    if activated:
        monkeypatch.setenv("PATH", str(OWN), prepend=":")
    else:  # the project names none, so the one on PATH is the engine's
        (tmp_path / "Pulumi.yaml").write_text("name: shop\nruntime: python\nmain: program\n")
    discovery.warn_if_hidden()
    assert warned == []


def test_the_plugin_itself_has_been_found(warned):
    construct._component_provider.__wrapped__()
    discovery.warn_if_hidden()
    assert warned == []
