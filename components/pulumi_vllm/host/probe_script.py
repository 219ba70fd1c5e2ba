"""Runs on the host (python3 >= 3.10, root): looks at everything ours at once and prints one JSON object."""

# Plain os calls start faster than pathlib, and a probe is part of every preview.
# ruff: noqa: PTH110, PTH112, PTH115, PTH116, PTH118, PTH119, PTH123, PTH207, PLR2004

import contextlib
import glob
import grp
import hashlib
import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from typing import Any

MOST_BYTES = 4 << 20
BASES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
)
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,NRestarts,MainPID,ActiveEnterTimestampMonotonic,ActiveEnterTimestamp,"
    "NeedDaemonReload,UnitFileState,FragmentPath,DropInPaths,ExecStart,EnvironmentFiles,ExecMainStatus"
)


def main() -> None:
    """Start the slow programs first, read the rest meanwhile."""
    wanted = json.loads(sys.argv[1])
    systemd = start("systemctl", "show", "--no-pager", f"--property={PROPERTIES}", *wanted["units"])
    gpus = start(
        "nvidia-smi", "--query-gpu=name,memory.total,uuid,driver_version", "--format=csv,noheader,nounits"
    )
    facts = {
        "probe": 1,
        "time": time.time(),
        "boot_id": boot(),
        "os": dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text("/etc/os-release"), re.MULTILINE)),
        "kernel": os.uname().release,
        "python": ".".join(map(str, sys.version_info[:3])),
        "files": files(wanted),
        "drop_ins": drop_ins(wanted["units"]),
        "mounts": mounts(),
        "stamp": text("/opt/vllm/.stamp").split(),
        "engine": engine(),
        "bootstrap": text("/var/lib/pulumi-vllm/bootstrap.stamp").strip(),
        "manifests": manifests(wanted),
        "readiness": parsed(text("/run/pulumi-vllm/readiness.json")),
        "listening": listening(),
        "disk_free": {path: free(path) for path in ("/", "/models", "/opt") if os.path.isdir(path)},
    }
    facts["units"] = units(output(systemd))
    facts["gpus"] = [
        [part.strip() for part in line.split(",")] for line in output(gpus).splitlines() if line.strip()
    ]
    json.dump(facts, sys.stdout)


def start(*command: str) -> "subprocess.Popen[bytes] | None":
    """Begin a program; None where the machine does not have it."""
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None


def output(process: "subprocess.Popen[bytes] | None") -> str:
    """What it printed; nothing when it failed or hung."""
    if process is None:
        return ""
    try:
        shown, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    return shown.decode(errors="replace") if process.returncode == 0 else ""


def text(path: str) -> str:
    """A small file's text; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""


def parsed(words: str) -> object:
    """JSON, or None."""
    try:
        return json.loads(words)
    except ValueError:
        return None


def boot() -> str:
    """One start of this machine: a container has the kernel's boot id, and a first process of its own."""
    started = text("/proc/1/stat").rpartition(")")[2].split()
    return f"{text('/proc/sys/kernel/random/boot_id').strip()}-{started[19] if len(started) > 19 else 0}"


def files(wanted: dict[str, Any]) -> dict[str, Any]:
    """Text, mode and owner of each file; None for one that is not there."""
    paths = set(wanted["paths"]) | {f"/etc/systemd/system/{unit}" for unit in wanted["units"]}
    for folder in wanted["folders"]:
        for place, _, names in os.walk(folder):
            paths.update(os.path.join(place, name) for name in names if not name.startswith("."))
    return {path: one(path) for path in sorted(paths)}


def one(path: str) -> "dict[str, Any] | None":
    """One file; a link or folder in its place has no text that could be ours."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    fact = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "owner": owner(found), "mtime": found.st_mtime}
    if not stat.S_ISREG(found.st_mode):
        kind = f"link to {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else "no regular file"
        return {**fact, "text": f"({kind})\n"}
    return {**fact, "text": text(path)}


def owner(found: os.stat_result) -> str:
    """user:group by name, by number where there is none."""
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user}:{group}"


def drop_ins(names: list[str]) -> dict[str, Any]:
    """Files that change what a unit of ours says, wherever an administrator may put them."""
    found = []
    for base in BASES:
        for name in names:
            found += glob.glob(f"{base}/{name}.d/*.conf")
            if base.endswith(".control"):
                found += glob.glob(f"{base}/{name}")
    return {path: text(path) for path in sorted(found)}


def units(shown: str) -> dict[str, Any]:
    """Properties by unit; with the arguments of its process, and the newest of its files."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit: dict[str, Any] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not unit.get("Id"):
            continue
        pid = unit.get("MainPID", "0")
        if pid.isdigit() and pid != "0":
            unit["argv"] = [part for part in text(f"/proc/{pid}/cmdline").split("\0") if part]
            unit["declared"] = expanded(unit.get("ExecStart", ""), pid)
        sources = [unit.get("FragmentPath", ""), *unit.get("DropInPaths", "").split()]
        sources += re.findall(r"(/\S+) \(ignore_errors", unit.get("EnvironmentFiles", ""))
        unit["newest"] = max(
            (os.stat(path).st_mtime for path in sources if os.path.exists(path)), default=0.0
        )
        unit["since"] = since(unit.get("ActiveEnterTimestampMonotonic", "0"))
        found[unit["Id"]] = unit
    return found


def since(monotonic_us: str) -> float:
    """When it became active, in seconds since 1970; 0 if it never did."""
    if not monotonic_us.isdigit() or monotonic_us == "0":
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + int(monotonic_us) / 1e6


def expanded(exec_start: str, pid: str) -> str:
    """The declared command line with $NAME as the process got it."""
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", exec_start, re.DOTALL)
    if match is None:
        return ""
    line = match.group(1)
    if "$" not in line:
        return line
    pairs = (entry.split("=", 1) for entry in text(f"/proc/{pid}/environ").split("\0") if "=" in entry)
    values = dict(pairs)
    return re.sub(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", lambda name: values.get(name.group(1), ""), line)


def mounts() -> dict[str, Any]:
    """Source, type and options by mount point; the last mount on a point is the one that counts."""
    found = {}
    for line in text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if len(fields) >= 6 and len(more) >= 2:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[4])
            found[point] = {"source": more[1], "type": more[0], "options": fields[5]}
    return found


def engine() -> "str | None":
    """Version of the installed engine."""
    for path in glob.glob("/opt/vllm/lib/python3*/site-packages/vllm*-[0-9]*.dist-info"):
        return os.path.basename(path)[: -len(".dist-info")].rpartition("-")[2]
    return None


def manifests(wanted: dict[str, Any]) -> dict[str, Any]:
    """Every manifest of weights, and which of its files are missing, of another size or changed."""
    found = {}
    places = {
        *wanted["weights"],
        *map(os.path.dirname, glob.glob(f"{wanted['weights_root']}/*/*/*/.manifest.json")),
    }
    for place in sorted(places):
        words = text(f"{place}/.manifest.json")
        manifest = parsed(words)
        if not isinstance(manifest, dict):
            continue
        listed = manifest.get("files")
        if not isinstance(listed, dict):
            listed = {}
        found[place] = {
            "repository": manifest.get("repository"),
            "revision": manifest.get("revision"),
            "sha256": hashlib.sha256(words.encode()).hexdigest(),
            "sizes": {name: size(f"{place}/{name}") for name in listed},
            "changed": [name for name in listed if newer(f"{place}/{name}", f"{place}/.manifest.json")],
            "wanted": {name: item.get("size") for name, item in listed.items() if isinstance(item, dict)},
        }
    return found


def size(path: str) -> "int | None":
    """Bytes of a file, through links."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def newer(path: str, manifest: str) -> bool:
    """Whether somebody wrote to a file after its hash was seen right."""
    try:
        return os.stat(path).st_ctime_ns > os.stat(manifest).st_mtime_ns
    except OSError:
        return False


def listening() -> list[tuple[str, int]]:
    """Address and port of every listening TCP socket."""
    found = set()
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in text(path).splitlines()[1:]:
            fields = line.split()
            if len(fields) >= 4 and fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                found.add((ip(address, family), int(port, 16)))
    return sorted(found)


def ip(hexadecimal: str, family: int) -> str:
    """The kernel prints addresses as native 32-bit words."""
    words = [bytes.fromhex(hexadecimal[at : at + 8]) for at in range(0, len(hexadecimal), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return socket.inet_ntop(family, b"".join(words))


def free(path: str) -> int:
    """Free bytes."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


if __name__ == "__main__":
    main()
