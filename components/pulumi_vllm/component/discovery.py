"""Whether the engine will find our plugin, asked early: its own message for that does not say what to type."""

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pulumi
import yaml

from pulumi_vllm.component.plugin_entry import names_plugin

inside_plugin = threading.Event()
"""Set where the plugin constructs a server for a program in another language: the engine has just found it."""


def warn_if_hidden() -> None:
    """Say what to type where nothing tells the engine of the plugin.

    A warning, not a refusal: whether an engine was told in a way of its own can't be seen from here.
    """
    project = None if inside_plugin.is_set() else _project(Path.cwd())
    if project is None:
        return
    try:
        document = yaml.safe_load(project.read_bytes())
    except yaml.YAMLError:
        return  # the engine, which reads it first, says so
    if isinstance(document, dict) and not (names_plugin(document) or _installed(document)):
        pulumi.log.warn(
            f"{project}: names no plugin vllm, and none is installed, so the engine may not find it; "
            f"run in {project.parent}: pulumi-vllm init"
        )


def _project(folder: Path) -> Path | None:
    """The project file that a program in this folder belongs to."""
    for above in (folder, *folder.parents):
        for name in ("Pulumi.yaml", "Pulumi.yml"):
            if (above / name).is_file():
                return above / name
    return None


def _installed(document: dict[str, Any]) -> bool:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    path = os.get_exec_path()
    # An environment that the project names is put before the engine's PATH, for the program alone
    # (ActivateVirtualEnv of Pulumi's language host). Where it is there once more, it is on the engine's too.
    if _names_environment(document) and path and Path(path[0]) == Path(sys.executable).parent:
        path = path[1:]
    return (
        any((home / "plugins").glob("resource-vllm-*"))
        or shutil.which("pulumi-resource-vllm", path=os.pathsep.join(path)) is not None
        or any(one.startswith("vllm:") for one in os.environ.get("PULUMI_DEBUG_PROVIDERS", "").split(","))
    )


def _names_environment(document: dict[str, Any]) -> bool:
    runtime = document.get("runtime")
    options = runtime.get("options") if isinstance(runtime, dict) else None
    return isinstance(options, dict) and bool({"virtualenv", "toolchain"} & options.keys())
