"""The plugin's entry in a Pulumi.yaml."""

from typing import Any


def names_plugin(document: dict[str, Any]) -> bool:
    """Whether the project has `plugins: providers: - name: vllm`, or `packages: vllm: …`."""
    plugins, packages = document.get("plugins"), document.get("packages")
    providers = plugins.get("providers") if isinstance(plugins, dict) else None
    entries = providers if isinstance(providers, list) else []
    return any(isinstance(entry, dict) and entry.get("name") == "vllm" for entry in entries) or (
        isinstance(packages, dict) and "vllm" in packages
    )
