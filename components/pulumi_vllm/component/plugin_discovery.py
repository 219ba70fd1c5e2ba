"""Warn early when the engine may not find the plugin. The engine's own message does not say what to run."""

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pulumi

from pulumi_vllm.component import project_file
from pulumi_vllm.plan import yaml_text
from pulumi_vllm.plan.errors import ConfigError

inside_plugin = threading.Event()
"""Set where the plugin itself constructs a server for a program in another language."""


def warn_if_hidden() -> None:
    """Warn with the command to run when neither the project nor the machine has the plugin.

    This is a warning, because the engine may know the plugin from a source that cannot be checked here.
    """
    project = None if inside_plugin.is_set() else project_file.find_above(Path.cwd())
    if project is None:
        return
    try:
        document = yaml_text.load(project.read_bytes().decode("utf-8", "surrogateescape"), str(project))
    except ConfigError:
        return  # the engine reads the file first and reports this
    if isinstance(document, dict) and not (project_file.names_plugin(document) or _installed(document)):
        pulumi.log.warn(
            f"{project}: names no plugin vllm, and none is installed, so the engine may not find it; "
            f"run in {project.parent}: pulumi-vllm init"
        )


def _installed(document: dict[str, Any]) -> bool:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    path = os.get_exec_path()
    # For the program, the language host puts the project's environment in front of the engine's PATH
    # (ActivateVirtualEnv). The engine has that environment only if PATH contains it once more.
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
