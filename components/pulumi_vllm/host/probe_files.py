"""Part of the probe: files, drop-ins of units, and mounts."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH112, PTH115, PTH116, PTH118, PTH207, PLR2004

import contextlib
import glob
import grp
import hashlib
import os
import pwd
import re
import stat
from typing import Any

from pulumi_vllm.host.mask import mask
from pulumi_vllm.host.probe_reading import text

DROP_IN_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
)


def files(request: dict[str, Any]) -> dict[str, Any]:
    """Return text, mode and owner of each file, or None for a file that does not exist."""
    units = {*request["units"], *templates_of(request["units"])}
    paths = set(request["paths"]) | {f"{request['units_directory']}/{unit}" for unit in units}
    for directory in request["directories"]:
        for folder, _, names in os.walk(directory):
            paths.update(os.path.join(folder, name) for name in names if not name.startswith("."))
    known = set(request["known"])
    return {path: file(path, known) for path in sorted(paths)}


def file(path: str, known: "set[str]") -> "dict[str, Any] | None":
    """Return masked text, digest, mode and owner of one file. A link or directory gets a text that no file has.

    A file whose digest is `known` is sent without its text: masking and sending all programs would take the longest.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    fact = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "owner": owner(found)}
    if not stat.S_ISREG(found.st_mode):
        kind = f"link to {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        return {**fact, "text": f"({kind})\n", "sha256": ""}
    content = text(path)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {**fact, "text": "" if digest in known else mask(content), "sha256": digest}


def owner(found: os.stat_result) -> str:
    """Return user:group by name, or by number where there is no name."""
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user}:{group}"


def folders(paths: list[str]) -> dict[str, str]:
    """Return mode and owner of each folder, as in "0755 root:root"; without those that do not exist."""
    present = {path: os.stat(path) for path in paths if os.path.isdir(path)}
    return {path: f"{stat.S_IMODE(found.st_mode):04o} {owner(found)}" for path, found in present.items()}


def templates_of(names: list[str]) -> "set[str]":
    """Return the units with a name without instance of which some are instances."""
    return {re.sub("@[^.]+", "@", name) for name in names if "@" in name}


def drop_ins(names: list[str]) -> dict[str, Any]:
    """Return all files that override one of our units, in every directory that systemd reads.

    A unit file of an instance comes before that of its template, wherever it is. A link to /dev/null masks the unit,
    which its state says.
    """
    found, templates = [], templates_of(names)
    shared = {
        re.sub(r"-[^.]*", "-", name) for name in names if "-" in name
    }  # vllm-.service is that of vllm-*.service
    for directory in DROP_IN_DIRECTORIES:
        for name in (*names, *templates, *shared):
            found += glob.glob(f"{directory}/{name}.d/*.conf")
            instance = "@" in name and name not in templates
            if instance or directory.endswith(".control"):
                found += glob.glob(f"{directory}/{name}")
    others = [path for path in sorted(found) if os.path.realpath(path) != os.devnull]
    return {path: fact for path in others if (fact := file(path, set())) is not None}


def mounts() -> dict[str, Any]:
    """Return source, type and whether it is writable, by mount point. The last mount on one hides the others."""
    found = {}
    for line in text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if len(fields) >= 6 and len(more) >= 2:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[4])
            # A mount point may be read-only, and so may its whole file system.
            options = {*fields[5].split(","), *(more[2].split(",") if len(more) > 2 else ())}
            found[point] = {"source": more[1], "type": more[0], "writable": "ro" not in options}
    return found


def free(path: str) -> int:
    """Return the free bytes of a file system."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
