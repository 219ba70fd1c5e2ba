"""Whether the engine will find our plugin, asked early: its own message for that does not say what to type."""

import os
import re
import shutil
import sys
from pathlib import Path

import pulumi

# `plugins: providers: - name: vllm`, or `packages: vllm: …`
_NAMED = re.compile(r"""name:\s*["']?vllm\b|^\s+["']?vllm["']?:""", re.MULTILINE)


def warn_if_hidden() -> None:
    """Say what to type where nothing tells the engine of the plugin.

    A warning, not a refusal: whether an engine was told in a way of its own can't be seen from here.
    """
    project = _project(Path.cwd())
    if project and not (_NAMED.search(project.read_text()) or _installed()):
        pulumi.log.warn(
            f"{project}: names no plugin vllm, and none is installed, so the engine won't find it; "
            f"run in {project.parent}: pulumi-vllm init"
        )


def _project(folder: Path) -> Path | None:
    """The project file that a program in this folder belongs to."""
    for above in (folder, *folder.parents):
        for name in ("Pulumi.yaml", "Pulumi.yml"):
            if (above / name).is_file():
                return above / name
    return None


def _installed() -> bool:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    # The program's own environment is on its PATH, but not on the engine's.
    own = Path(sys.executable).parent
    path = [place for place in os.get_exec_path() if Path(place) != own]
    return (
        any((home / "plugins").glob("resource-vllm-*"))
        or shutil.which("pulumi-resource-vllm", path=os.pathsep.join(path)) is not None
        or any(one.startswith("vllm:") for one in os.environ.get("PULUMI_DEBUG_PROVIDERS", "").split(","))
    )
