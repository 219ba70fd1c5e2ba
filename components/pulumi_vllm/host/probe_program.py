"""Program for the host (python3 >= 3.10, root): print the state of the host as one JSON object.

Its argument is a `ProbeRequest` as JSON. `Facts.parse` reads its output. What looks like a secret is masked before it
leaves the host. `Host.probe` sends mask.py with this program, in place of its import.
"""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH112, PTH115, PTH116, PTH118, PTH119, PTH123, PTH207, PLR2004

import contextlib
import csv
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

from pulumi_vllm.host.mask import mask

LARGEST_FILE_BYTES = 4 << 20
DROP_IN_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
)
# How nft prints a rule of its own or of iptables that sends packets to another address or port.
FORWARDING = r"\b(dnat|redirect|DNAT|REDIRECT)\b"
PROPERTIES = (
    "Id,LoadState,ActiveState,MainPID,"
    "NeedDaemonReload,UnitFileState,ExecStart,InvocationID,User,NoNewPrivileges"
)


def main() -> None:
    """Start the slow programs first, and read everything else while they run."""
    request = json.loads(sys.argv[1])
    systemd = start("systemctl", "show", "--no-pager", f"--property={PROPERTIES}", *request["units"])
    gpus = start(
        "nvidia-smi", "--query-gpu=name,memory.total,uuid,driver_version", "--format=csv,noheader,nounits"
    )
    nft = "/usr/sbin/nft"
    table = request["firewall_table"]
    rules = start(nft, "-s", "list", "ruleset")
    # The same nft prints the declared rules from a network of their own, so that both texts have the same form.
    declared = start(
        "unshare", "-n", "sh", "-c", f"{nft} -f {request['firewall_rules']} && {nft} -s list table {table}"
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
        "volume": parsed(text(request["volume_marker"])),
        "stamp": text(request["engine_stamp"]).split(),
        "engine": engine_version(request["engine_packages"]),
        "manifests": manifests(request),
        "readiness": parsed(text(request["readiness_result"])),
        "canary": canary(request["canary_result"]),
        "listening": listening(),
        "disk_free": {path: free(path) for path in ("/", request["volume"], "/opt") if os.path.isdir(path)},
    }
    facts["units"] = units(output(systemd), request["starts"])
    facts["firewall"] = firewall(output(rules), output(declared), table)
    facts["gateway"] = gateway(request["gateway_socket"])
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


def canary(path: str) -> "dict[str, Any] | None":
    """Return the result of the canary's last run and the seconds since then, or since the boot, or None."""
    result = parsed(text(path))
    if not isinstance(result, dict):
        return None
    up_s = float(text("/proc/uptime").split()[0]) - start_ticks("1") / os.sysconf("SC_CLK_TCK")
    return {"age_s": min(time.time() - os.stat(path).st_mtime, up_s), **result}


def boot_identity() -> str:
    """Return what `boot_identity.PRINT_BOOT_IDENTITY` prints: it changes with every boot of the host."""
    return f"{text('/proc/sys/kernel/random/boot_id').strip()}-{start_ticks('1')}"


def start_ticks(pid: str) -> int:
    """Return when a process started, in clock ticks since the kernel did; 0 where that is not known."""
    fields = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def files(request: dict[str, Any]) -> dict[str, Any]:
    """Return text, mode and owner of each file, or None for a file that does not exist."""
    paths = set(request["paths"]) | {f"{request['units_directory']}/{unit}" for unit in request["units"]}
    for directory in request["directories"]:
        for folder, _, names in os.walk(directory):
            paths.update(os.path.join(folder, name) for name in names if not name.startswith("."))
    return {path: file(path) for path in sorted(paths)}


def file(path: str) -> "dict[str, Any] | None":
    """Return masked text, digest, mode and owner of one file. A link or directory gets a text that no file has."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    fact = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "owner": owner(found)}
    if not stat.S_ISREG(found.st_mode):
        kind = f"link to {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        return {**fact, "text": f"({kind})\n", "sha256": ""}
    content = text(path)
    return {**fact, "text": mask(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}


def owner(found: os.stat_result) -> str:
    """Return user:group by name, or by number where there is no name."""
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user}:{group}"


def drop_ins(names: list[str]) -> dict[str, Any]:
    """Return all files that override one of our units, in every directory that systemd reads."""
    found = []
    for directory in DROP_IN_DIRECTORIES:
        for name in names:
            found += glob.glob(f"{directory}/{name}.d/*.conf")
            if directory.endswith(".control"):
                found += glob.glob(f"{directory}/{name}")
    return {path: fact for path in sorted(found) if (fact := file(path)) is not None}


def units(shown: str, starts: str) -> dict[str, Any]:
    """Return the properties of each unit, its process, and the files with which it was started."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit: dict[str, Any] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not unit.get("Id"):
            continue
        pid = unit.get("MainPID", "0")
        if pid.isdigit() and pid != "0":
            unit["argv"] = [part for part in text(f"/proc/{pid}/cmdline").split("\0") if part]
            unit["declared"] = expanded(unit.get("ExecStart", ""), pid)
            unit["process"] = process(pid)
            record = parsed(text(f"{starts}/{unit['Id']}.json"))
            if isinstance(record, dict) and record.get("invocation") == unit.get("InvocationID"):
                unit["record"] = record
        found[unit["Id"]] = unit
    return found


def process(pid: str) -> dict[str, Any]:
    """Return user and sandbox of a process, as the kernel shows them."""
    status = dict(re.findall(r"^(\w+):\s*(\S+)", text(f"/proc/{pid}/status"), re.MULTILINE))
    user = status.get("Uid", "")
    with contextlib.suppress(KeyError, ValueError):
        user = pwd.getpwuid(int(user)).pw_name
    return {"user": user, "no_new_privileges": status.get("NoNewPrivs") == "1"}


def firewall(rules: str, declared: str, table: str) -> dict[str, Any]:
    """Return our table in the kernel, the one that its file gives, and foreign rules that forward ports."""
    found = re.search(rf"^table {re.escape(table)} \{{.*?^\}}$", rules, re.MULTILINE | re.DOTALL)
    ours = found[0].strip() if found else ""
    others = rules.replace(ours, "") if ours else rules
    forwarding = [line.strip() for line in others.splitlines() if re.search(FORWARDING, line)]
    return {"rules": ours, "declared": declared.strip(), "forwarding": forwarding[:20]}


def gateway(path: str) -> "dict[str, Any] | None":
    """Return what the gateway's admin socket says about its server, and when its worker started."""
    try:
        servers = asked(path, "show stat vllm 4 -1")
        process = asked(path, "show info")
    except OSError:
        return None
    rows = list(csv.DictReader(servers.removeprefix("# ").splitlines()))
    pid = re.search(r"^Pid: (\d+)", process, re.MULTILINE)
    # HAProxy's own uptime leaves out the time for which a host was frozen.
    started = start_ticks(pid[1]) if pid else 0
    if not rows or not started:
        return None
    return {
        "status": rows[0].get("status"),
        "seconds": rows[0].get("lastchg"),
        "started": started / os.sysconf("SC_CLK_TCK"),
    }


def asked(path: str, command: str) -> str:
    """Send one command to HAProxy's admin socket and return the answer. All sessions may be in use for a moment."""
    for pause_s in (0.1, 0.5, 1.0, None):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(3)
                connection.connect(path)
                connection.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        except (BlockingIOError, TimeoutError):
            if pause_s is None:
                raise
            time.sleep(pause_s)
    return ""


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
