"""All files of one machine, from its plan."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import PlanError, catalogue
from pulumi_vllm.plan.config import MARK, MOST_AT_ONCE
from pulumi_vllm.render import firewall, jinja, systemd
from pulumi_vllm.render.bootstrap import bootstrap
from pulumi_vllm.render.host_files import HostFile, Mount

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan

STOP_TIMEOUT_S = 45
"""Limit of a unit's own stop path: it must fit into a reclaim's 60 s."""

_ETC = "/etc/pulumi-vllm"
_UNITS = "/etc/systemd/system"
_SERVE = "restart vllm.service"
_GATEWAY = "reload haproxy.service"

# path, mode, what a change means
_TABLE = (
    (f"{_ETC}/gateway/ca.pem", "0644", "nothing"),
    (f"{_ETC}/gateway/haproxy.cfg", "0644", _GATEWAY),
    (f"{_ETC}/gateway/keys.map", "0600", _GATEWAY),
    (f"{_ETC}/gateway/limits.map", "0644", _GATEWAY),
    (f"{_ETC}/gateway/tls.pem", "0600", _GATEWAY),
    (f"{_ETC}/install.json", "0644", _SERVE),
    (f"{_ETC}/nftables.nft", "0644", "reload vllm-firewall.service"),
    (f"{_ETC}/preflight.json", "0644", _SERVE),
    (f"{_ETC}/readiness.json", "0644", "nothing"),
    (f"{_ETC}/secrets/hf-token", "0600", "nothing"),
    (f"{_ETC}/secrets/readiness-token", "0600", "nothing"),
    (f"{_ETC}/vllm.env", "0644", _SERVE),
    (f"{_ETC}/weights.json", "0644", "nothing"),
    (f"{_UNITS}/haproxy.service", "0644", "restart haproxy.service"),
    (f"{_UNITS}/vllm-firewall.service", "0644", "restart vllm-firewall.service"),
    (f"{_UNITS}/vllm-install.service", "0644", "daemon-reload"),
    (f"{_UNITS}/vllm-preflight.service", "0644", "daemon-reload"),
    (f"{_UNITS}/vllm-readiness.service", "0644", "daemon-reload"),
    (f"{_UNITS}/vllm-weights.service", "0644", "daemon-reload"),
    (f"{_UNITS}/vllm.service", "0644", _SERVE),
)

_MOUNT_OPTIONS = {
    "block": ("ext4", "rw,noatime,nofail"),
    "virtiofs": ("virtiofs", "rw,noatime,nofail"),
    "nfs": ("nfs", "rw,noatime,nofail,hard,_netdev"),
}


def render(plan: Plan, *, mount: Mount | None = None) -> tuple[HostFile, ...]:
    """Every file on the host in path order; `models.mount` only when the mount is known."""
    variables = _variables(plan)
    files = [
        HostFile(path, jinja.fill(path, **variables), mode, on_change=change) for path, mode, change in _TABLE
    ]
    files += [
        HostFile(path, text, "0644" if path.endswith(".py") else "0755")
        for path, text in jinja.plain().items()
    ]
    for minor, text in plan.engine.locks().items():
        files.append(HostFile(f"{_ETC}/requirements-{minor}.txt", text, on_change=_SERVE))
    files += [HostFile(f"{_ETC}/requirements-uv.txt", catalogue.uv_lock()), bootstrap(plan)]
    if mount is not None:
        files.append(models_mount(mount.kind, mount.source))
    return tuple(sorted(files, key=lambda file: file.path))


def models_mount(kind: str, source: str) -> HostFile:
    """The unit that mounts /models; `source` is a device or LABEL=…, a virtiofs tag, or host:/export."""
    if kind not in _MOUNT_OPTIONS:
        known = ", ".join(_MOUNT_OPTIONS)
        raise PlanError((f"volume: mount kind {kind!r} is unknown; this version mounts {known}",))
    kind_of_file_system, options = _MOUNT_OPTIONS[kind]
    path = f"{_UNITS}/models.mount"
    text = jinja.fill(path, mount=Mount(kind, source), mount_type=kind_of_file_system, mount_options=options)
    return HostFile(path, text, on_change="restart models.mount")


def _variables(plan: Plan) -> dict[str, Any]:
    deployment, machine = plan.deployment, plan.deployment.machine
    weights = plan.model.precisions[plan.precision]
    cuda = plan.engine.runs_on == "cuda"
    readiness_timeout_s = 600 if cuda else 240
    return {
        "plan": plan,
        "weights": weights,
        "command_lines": systemd.command_lines(plan.argv),
        "gateway": deployment.gateway,
        "firewall": firewall.rules(deployment.access.allow, deployment.access.ssh),
        "readiness_timeout_s": readiness_timeout_s,
        "readiness_unit_timeout_s": readiness_timeout_s + 60,
        "golden": [dataclasses.asdict(one) for one in plan.model.golden],
        "gpus": {"name": machine.gpu, "count": machine.count} if cuda else None,
        "key_names": (*deployment.access.keys, MARK),
        "locks": tuple(plan.engine.locks()),
        "max_body_bytes": deployment.gateway.max_body_mib * 2**20,
        "min_disk_bytes": plan.disk_gib * 2**30 if cuda else weights.bytes * 2,
        "most_at_once": MOST_AT_ONCE,
        "nvswitch": plan.needs_nvswitch,
        "reserve_bytes": 2 * 2**30 if cuda else 64 * 2**20,
        "stop_timeout_s": STOP_TIMEOUT_S,
    }
