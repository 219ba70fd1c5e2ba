"""Program for the host (python3 >= 3.10, root): print the state of the host as one JSON object.

Its argument is a `ProbeRequest` as JSON. `Facts.parse` reads its output. What looks like a secret is masked before it
leaves the host. `Host.probe` sends the modules that this one imports with it (`probe_source`).
"""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH112, PTH207

import glob
import json
import os
import re
import sys
import time

from pulumi_vllm.host.probe_access import access
from pulumi_vllm.host.probe_clock import synchronised
from pulumi_vllm.host.probe_engine import canary, edited, engine_version, manifests, packages
from pulumi_vllm.host.probe_files import drop_ins, files, folders, free, mounts
from pulumi_vllm.host.probe_gateway import gateway
from pulumi_vllm.host.probe_network import apart, firewall, listening, loaded
from pulumi_vllm.host.probe_processes import boot_identity, engine_units, units
from pulumi_vllm.host.probe_reading import output, parsed, start, text

PROPERTIES = (
    "Id,LoadState,ActiveState,MainPID,NeedDaemonReload,UnitFileState,ExecStart,InvocationID,User,NoNewPrivileges,"
    "CapabilityBoundingSet,SystemCallArchitectures,ProtectSystem,LimitNOFILE,LimitMEMLOCK,LimitCORE,ControlGroup,"
    "MemoryMax,TasksMax,CPUQuotaPerSecUSec"
)


def main() -> None:
    """Start the slow programs first, and read everything else while they run."""
    request = json.loads(sys.argv[1])
    systemd = start("systemctl", "show", "--no-pager", f"--property={PROPERTIES}", *request["units"])
    sshd = start("/usr/sbin/sshd", "-T")
    gpus = start(
        "nvidia-smi", "--query-gpu=name,memory.total,uuid,driver_version", "--format=csv,noheader,nounits"
    )
    nft = "/usr/sbin/nft"
    table = request["firewall_table"]
    rules = start("sh", "-c", loaded(nft))
    # The same nft prints the declared rules from a network of their own, so that both texts have the same form.
    declared = start("unshare", "-n", "sh", "-c", apart(nft, request["firewall_rules"], table))
    facts = {
        "probe": 1,
        "time": time.time(),
        "synchronised": synchronised(),
        "boot_id": boot_identity(),
        "os": dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text("/etc/os-release"), re.MULTILINE)),
        "kernel": os.uname().release,
        "python": ".".join(map(str, sys.version_info[:3])),
        "files": files(request),
        "folders": folders(request["folders"]),
        "drop_ins": drop_ins(request["units"]),
        "mounts": mounts(),
        "volume": parsed(text(request["volume_marker"])),
        "stamp": text(request["engine_stamp"]).split(),
        "engine": engine_version(request["engine_packages"]),
        "packages": packages(request["engine_packages"]),
        "edited": edited(request["engine_packages"], request["engine_stamp"]),
        "manifests": manifests(request),
        "readiness": parsed(text(request["readiness_result"])),
        "canaries": {path: canary(path) for path in sorted(glob.glob(request["canary_results"]))},
        "restored": parsed(text(request["restored_files"])),
        "listening": listening(),
        "engine_units": engine_units(request["engine_units"], request["units_directory"]),
        "disk_free": {path: free(path) for path in ("/", request["volume"], "/opt") if os.path.isdir(path)},
    }
    facts["units"] = units(output(systemd), request["starts"])
    facts["firewall"] = firewall(output(rules), output(declared), table)
    facts["gateway"] = gateway(
        request["gateway_socket"], request["gateway_certificate"], request["gateway_maps"]
    )
    facts["access"] = access(request["login"], output(sshd))
    facts["gpus"] = [
        [part.strip() for part in line.split(",")] for line in output(gpus).splitlines() if line.strip()
    ]
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    main()
