"""A project's Pulumi.yaml: where it is, and whether it names the plugin."""

from pathlib import Path
from typing import Any


def find(folder: Path) -> Path | None:
    """Return the project file in this folder, which Pulumi takes as Pulumi.yaml before Pulumi.yml."""
    return next((file for name in ("Pulumi.yaml", "Pulumi.yml") if (file := folder / name).is_file()), None)


def find_above(folder: Path) -> Path | None:
    """Return the project file of a program or command in this folder: here, or in the next folder above with one."""
    return next((file for above in (folder, *folder.parents) if (file := find(above))), None)


def names_plugin(document: dict[str, Any]) -> bool:
    """Whether the project has `plugins: providers: - name: vllm`, or `packages: vllm: …`."""
    plugins, packages = document.get("plugins"), document.get("packages")
    providers = plugins.get("providers") if isinstance(plugins, dict) else None
    entries = providers if isinstance(providers, list) else []
    return any(isinstance(entry, dict) and entry.get("name") == "vllm" for entry in entries) or (
        isinstance(packages, dict) and "vllm" in packages
    )
