"""Program for the host (python3 >= 3.10, root): print the state of the host as one JSON object.

Its argument is a `ProbeRequest` as JSON. `Facts.parse` reads its output.
"""

# os starts faster than pathlib, and every preview runs a probe.
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

LARGEST_FILE_BYTES = 4 << 20
DROP_IN_DIRECTORIES = (
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
    """Start the slow programs first, and read everything else while they run."""
    request = json.loads(sys.argv[1])
    systemd = start("systemctl", "show", "--no-pager", f"--property={PROPERTIES}", *request["units"])
    gpus = start(
        "nvidia-smi", "--query-gpu=name,memory.total,uuid,driver_version", "--format=csv,noheader,nounits"
    )
    facts = {
        "probe": 1,
        "time": time.time(),
        "boot_id": boot_identity(),
        "os": dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text("/etc/os-release"), re.MULTILINE)),
        "kernel": os.uname().release,
        "python": ".".join(map(str, sys.version_info[:3])),
        "files": files(request),
        "drop_ins": drop_ins(request["units"]),
        "mounts": mounts(),
        "stamp": text(request["engine_stamp"]).split(),
        "engine": engine_version(request["engine_packages"]),
        "bootstrap": text(request["bootstrap_stamp"]).strip(),
        "manifests": manifests(request),
        "readiness": parsed(text(request["readiness_result"])),
        "listening": listening(),
        "disk_free": {path: free(path) for path in ("/", request["volume"], "/opt") if os.path.isdir(path)},
    }
    facts["units"] = units(output(systemd))
    facts["gpus"] = [
        [part.strip() for part in line.split(",")] for line in output(gpus).splitlines() if line.strip()
    ]
    json.dump(facts, sys.stdout)


def start(*command: str) -> "subprocess.Popen[bytes] | None":
    """Start a program. Return None where the host does not have it."""
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None


def output(process: "subprocess.Popen[bytes] | None") -> str:
    """Return what a program printed, or nothing when it failed or hung."""
    if process is None:
        return ""
    try:
        shown, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    return shown.decode(errors="replace") if process.returncode == 0 else ""


def text(path: str) -> str:
    """Return the text of a file, or "" where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read(LARGEST_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def parsed(json_text: str) -> object:
    """Parse JSON. Return None where it is not valid."""
    try:
        return json.loads(json_text)
    except ValueError:
        return None


def boot_identity() -> str:
    """Return what `boot_identity.PRINT_BOOT_IDENTITY` prints: it changes with every boot of the host."""
    started = text("/proc/1/stat").rpartition(")")[2].split()
    return f"{text('/proc/sys/kernel/random/boot_id').strip()}-{started[19] if len(started) > 19 else 0}"


def files(request: dict[str, Any]) -> dict[str, Any]:
    """Return text, mode and owner of each file, or None for a file that does not exist."""
    paths = set(request["paths"]) | {f"{request['units_directory']}/{unit}" for unit in request["units"]}
    for directory in request["directories"]:
        for folder, _, names in os.walk(directory):
            paths.update(os.path.join(folder, name) for name in names if not name.startswith("."))
    return {path: file(path) for path in sorted(paths)}


def file(path: str) -> "dict[str, Any] | None":
    """Return text, mode and owner of one file. A link or directory gets a text that no declared file has."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    fact = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "owner": owner(found), "mtime": found.st_mtime}
    if not stat.S_ISREG(found.st_mode):
        kind = f"link to {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        return {**fact, "text": f"({kind})\n"}
    return {**fact, "text": text(path)}


def owner(found: os.stat_result) -> str:
    """Return user:group by name, or by number where there is no name."""
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user}:{group}"


def drop_ins(names: list[str]) -> dict[str, Any]:
    """Return the text of all files that override one of our units, in every directory that systemd reads."""
    found = []
    for directory in DROP_IN_DIRECTORIES:
        for name in names:
            found += glob.glob(f"{directory}/{name}.d/*.conf")
            if directory.endswith(".control"):
                found += glob.glob(f"{directory}/{name}")
    return {path: text(path) for path in sorted(found)}


def units(shown: str) -> dict[str, Any]:
    """Return the properties of each unit, the arguments of its process, and when its files last changed."""
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
    """Convert a monotonic timestamp to seconds since 1970. 0 means that the unit never became active."""
    if not monotonic_us.isdigit() or monotonic_us == "0":
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + int(monotonic_us) / 1e6


def expanded(exec_start: str, pid: str) -> str:
    """Return the declared command line, with variables expanded as the process got them."""
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
    """Return source, type and options by mount point. The last mount on a mount point hides the others."""
    found = {}
    for line in text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if len(fields) >= 6 and len(more) >= 2:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[4])
            found[point] = {"source": more[1], "type": more[0], "options": fields[5]}
    return found


def engine_version(packages: str) -> "str | None":
    """Return the version of the installed engine."""
    for path in glob.glob(f"{packages}/vllm*-[0-9]*.dist-info"):
        return os.path.basename(path)[: -len(".dist-info")].rpartition("-")[2]
    return None


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


def listening() -> list[tuple[str, int]]:
    """Return address and port of every listening TCP socket."""
    found = set()
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in text(path).splitlines()[1:]:
            fields = line.split()
            if len(fields) >= 4 and fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                found.add((ip(address, family), int(port, 16)))
    return sorted(found)


def ip(hexadecimal: str, family: int) -> str:
    """Format an address, which the kernel prints as 32-bit words in the byte order of the host."""
    words = [bytes.fromhex(hexadecimal[at : at + 8]) for at in range(0, len(hexadecimal), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return socket.inet_ntop(family, b"".join(words))


def free(path: str) -> int:
    """Return the free bytes of a file system."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


if __name__ == "__main__":
    main()
