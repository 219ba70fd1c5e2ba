"""Part of the probe: the engine, its packages and weights, and what the canary saw of it."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH116, PTH119, PTH207, PTH208

import glob
import hashlib
import os
import time
from typing import Any

from pulumi_vllm.host.probe_processes import start_ticks
from pulumi_vllm.host.probe_reading import parsed, text

MOST_EDITED = 5


def engine_version(packages: str) -> "str | None":
    """Return the version of the installed engine."""
    for path in glob.glob(f"{packages}/vllm*-[0-9]*.dist-info"):
        return os.path.basename(path)[: -len(".dist-info")].rpartition("-")[2]
    return None


def packages(pattern: str) -> list[tuple[str, str]]:
    """Return name and version of every distribution in the folders of packages, as their directories are called."""
    names = [name for folder in glob.glob(pattern) for name in os.listdir(folder)]
    found = [name[: -len(".dist-info")].rpartition("-") for name in names if name.endswith(".dist-info")]
    return sorted((name, version) for name, _, version in found)


def edited(pattern: str, stamp: str) -> list[str]:
    """Return the source files of vLLM that were written to after its stamp, which the installation writes last.

    Other packages have ten times as many files; reading their times would make every preview slower.
    """
    try:
        installed_ns = os.stat(stamp).st_mtime_ns
    except OSError:
        return []
    found, folders = [], glob.glob(f"{pattern}/vllm")
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif (
                    entry.name.endswith(".py")
                    and entry.stat(follow_symlinks=False).st_mtime_ns > installed_ns
                ):
                    found.append(entry.path)
    return sorted(found)[:MOST_EDITED]


def manifests(request: dict[str, Any]) -> dict[str, Any]:
    """Return every manifest of weights, with the sizes of its files and the names of those that changed."""
    found = {}
    directories = {
        *request["weights"],
        *map(os.path.dirname, glob.glob(f"{request['weights_root']}/*/*/*/.manifest.json")),
    }
    for directory in sorted(directories):
        manifest_path = f"{directory}/.manifest.json"
        manifest_text = text(manifest_path)
        manifest = parsed(manifest_text)
        if not isinstance(manifest, dict):
            continue
        listed = manifest.get("files")
        if not isinstance(listed, dict):
            listed = {}
        found[directory] = {
            "repository": manifest.get("repository"),
            "revision": manifest.get("revision"),
            "sha256": hashlib.sha256(manifest_text.encode()).hexdigest(),
            "sizes": {name: size(f"{directory}/{name}") for name in listed},
            "changed": [name for name in listed if newer(f"{directory}/{name}", manifest_path)],
            "listed": {name: item.get("size") for name, item in listed.items() if isinstance(item, dict)},
        }
    return found


def size(path: str) -> "int | None":
    """Return the size of a file, following links."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def newer(path: str, manifest: str) -> bool:
    """Whether a file was written to after the manifest, which lists verified checksums."""
    try:
        return os.stat(path).st_ctime_ns > os.stat(manifest).st_mtime_ns
    except OSError:
        return False


def canary(path: str) -> "dict[str, Any] | None":
    """Return the result of the canary's last run and the seconds since then, or since the boot, or None."""
    result = parsed(text(path))
    if not isinstance(result, dict):
        return None
    up_s = float(text("/proc/uptime").split()[0]) - start_ticks("1") / os.sysconf("SC_CLK_TCK")
    return {"age_s": min(time.time() - os.stat(path).st_mtime, up_s), **result}
