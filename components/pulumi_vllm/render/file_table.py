"""All files of one host, from its plan."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from pulumi_vllm.plan import PlanError, engine_locks
from pulumi_vllm.plan.access_config import READINESS_KEY
from pulumi_vllm.plan.answer_checks import answer_checks
from pulumi_vllm.plan.key_limits import key_limits, share_of_a_key
from pulumi_vllm.render import firewall, gateway_routes, layout, package_files, systemd, templates
from pulumi_vllm.render.engine_places import INSTANCE_SERVER, engine_places, instance
from pulumi_vllm.render.first_boot import bootstrap
from pulumi_vllm.render.host_file import HostFile, Mount

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan

STOP_TIMEOUT_S = 45
"""Limit for a unit to stop: it must fit into the 60 s between a spot notice and the reclaim."""


_RAM_PER_PROCESS = 2 * 2**30
"""API server, core and each worker. A worker of the CPU engine holds 2.2 GiB beside the weights; on GPUs a floor."""
_ENGINE_BYTES = 12 * 10**9
"""The environment of 0.26.0 has 6.1 GB, and uv's cache as much where it can't be linked."""


class _Row(NamedTuple):
    path: str
    mode: str
    owner: str
    on_change: str
    template: str = ""
    """Path whose template it has, where that is another one."""
    engine: int = 0
    """Number of the engine that it belongs to."""


_ROOT = "root:root"
_NOTHING = "nothing"
_DAEMON_RELOAD = "daemon-reload"
_RESTART_ENGINE = f"restart {layout.ENGINE_UNIT}"
_RELOAD_GATEWAY = f"reload {layout.GATEWAY_UNIT}"
_RESTART_GATEWAY = f"restart {layout.GATEWAY_UNIT}"
_RELOAD_FIREWALL = f"reload {layout.FIREWALL_UNIT}"
_RESTART_FIREWALL = f"restart {layout.FIREWALL_UNIT}"

# One row per templated file, sorted by path: path, mode, owner, what a change of it triggers.
_TABLE = (
    _Row(layout.UNATTENDED_UPGRADES, "0644", _ROOT, _NOTHING),
    _Row(layout.NEEDRESTART, "0644", _ROOT, _NOTHING),
    _Row(layout.CANARY_CONFIG, "0644", _ROOT, _NOTHING),
    _Row(layout.CA_CERTIFICATE, "0644", _ROOT, _NOTHING),
    _Row(layout.HAPROXY_CONFIG, "0644", _ROOT, _RELOAD_GATEWAY),
    _Row(layout.HEALTH_MAP, "0644", _ROOT, _RELOAD_GATEWAY),
    _Row(layout.KEYS_MAP, "0600", _ROOT, _RELOAD_GATEWAY),
    _Row(layout.LIMITS_MAP, "0644", _ROOT, _RELOAD_GATEWAY),
    _Row(layout.GATEWAY_CERTIFICATE, "0600", _ROOT, _RELOAD_GATEWAY),
    _Row(layout.INSTALL_CONFIG, "0644", _ROOT, _RESTART_ENGINE),
    _Row(layout.LIFETIME_CONFIG, "0644", _ROOT, _NOTHING),
    _Row(layout.FIREWALL_RULES, "0644", _ROOT, _RELOAD_FIREWALL),
    _Row(layout.NOTIFY_CONFIG, "0644", _ROOT, _NOTHING),
    _Row(layout.PREFLIGHT_CONFIG, "0644", _ROOT, _RESTART_ENGINE),
    _Row(layout.READINESS_CONFIG, "0644", _ROOT, _NOTHING),
    _Row(layout.REQUESTS_CONFIG, "0644", _ROOT, _RESTART_ENGINE),
    _Row(layout.HUB_TOKEN, "0600", _ROOT, _NOTHING),
    _Row(layout.NOTIFY_URL, "0600", _ROOT, _NOTHING),
    _Row(layout.READINESS_TOKEN, "0600", _ROOT, _NOTHING),
    _Row(layout.ENGINE_ENVIRONMENT, "0644", _ROOT, _RESTART_ENGINE),
    _Row(layout.WEIGHTS_CONFIG, "0644", _ROOT, _NOTHING),
    _Row(layout.unit_file(layout.GATEWAY_UNIT), "0644", _ROOT, _RESTART_GATEWAY),
    _Row(layout.unit_file(layout.CANARY_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.CANARY_TIMER), "0644", _ROOT, f"restart {layout.CANARY_TIMER}"),
    _Row(layout.unit_file(layout.FIREWALL_UNIT), "0644", _ROOT, _RESTART_FIREWALL),
    _Row(layout.unit_file(layout.INSTALL_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.LIFETIME_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    # Started with the files: a machine whose first `up` fails is forgotten most easily.
    _Row(layout.unit_file(layout.LIFETIME_TIMER), "0644", _ROOT, f"run {layout.LIFETIME_TIMER}"),
    _Row(layout.unit_file(layout.NOTIFY_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.PREFLIGHT_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.READINESS_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.ROLLBACK_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.WEIGHTS_UNIT), "0644", _ROOT, _DAEMON_RELOAD),
    _Row(layout.unit_file(layout.ENGINE_UNIT), "0644", _ROOT, _RESTART_ENGINE),
)
_MOUNT_ROW = _Row(layout.unit_file(layout.MOUNT_UNIT), "0644", _ROOT, f"restart {layout.MOUNT_UNIT}")

# Mount kind of the volume: type and options of the file system.
_FILE_SYSTEMS = {
    "block": ("ext4", "rw,noatime,nofail"),
    "virtiofs": ("virtiofs", "rw,noatime,nofail"),
    "nfs": ("nfs", "rw,noatime,nofail,hard,_netdev"),
    # On a machine that somebody else made: a directory, and a device whose file system is as it was found.
    "bind": ("none", "bind"),
    "device": ("auto", "rw,noatime,nofail"),
}


def render(plan: Plan, *, mount: Mount | None = None) -> tuple[HostFile, ...]:
    """Every file on the host, sorted by path. The mount unit is included only if the mount is known."""
    variables = _variables(plan)
    # Whoever made the machine decides which packages it upgrades.
    left_alone = {layout.UNATTENDED_UPGRADES} if plan.deployment.machine.is_own else set()
    files = [_filled(row, variables) for row in _rows(plan.engines) if row.path not in left_alone]
    for path, text in package_files.programs().items():
        on_change = _RESTART_ENGINE if _is_engine_module(path) else _NOTHING
        mode = "0644" if path.endswith(".py") else "0755"
        files.append(HostFile(path, text, mode, on_change=on_change, packaged=True))
    for minor, text in plan.engine.locks().items():
        files.append(HostFile(layout.engine_lock(minor), text, on_change=_RESTART_ENGINE, packaged=True))
    if plan.engines > 1:
        text = package_files.conversation()
        files.append(HostFile(layout.CONVERSATION, text, on_change=_RELOAD_GATEWAY, packaged=True))
    files += [HostFile(layout.UV_LOCK, engine_locks.uv(), packaged=True), bootstrap(plan)]
    if mount is not None:
        files.append(models_mount(mount.kind, mount.source))
    return tuple(sorted(files, key=lambda file: file.path))


def models_mount(kind: str, source: str) -> HostFile:
    """The unit that mounts the volume; `source` is a device or LABEL=…, a virtiofs tag, or host:/export."""
    if kind not in _FILE_SYSTEMS:
        known = ", ".join(_FILE_SYSTEMS)
        raise PlanError((f"volume: mount kind {kind!r} is unknown; this version mounts {known}",))
    file_system, options = _FILE_SYSTEMS[kind]
    variables = {"mount": Mount(kind, source), "mount_type": file_system, "mount_options": options}
    return _filled(_MOUNT_ROW, variables)


def _filled(row: _Row, variables: dict[str, Any]) -> HostFile:
    text = templates.fill(row.template or row.path, **variables, engine_number=row.engine)
    return HostFile(row.path, text, row.mode, row.owner, row.on_change)


def _rows(engines: int) -> tuple[_Row, ...]:
    """The table's rows. Several engines share a unit, and each has an environment and a canary's configuration."""
    if engines == 1:
        return _TABLE
    each = (layout.ENGINE_ENVIRONMENT, layout.CANARY_CONFIG)
    rows = []
    for row in _TABLE:
        if row.path == layout.unit_file(layout.ENGINE_UNIT):
            rows.append(row._replace(path=layout.unit_file(layout.ENGINE_TEMPLATE), template=row.path))
        elif row.path in each:
            for number, place in enumerate(engine_places(engines)):
                path = (place.environment, place.canary_config)[each.index(row.path)]
                rows.append(row._replace(path=path, template=row.path, engine=number))
        else:
            rows.append(row)
    return tuple(rows)


def _is_engine_module(path: str) -> bool:
    return path.startswith(f"{layout.ENGINE_MODULES}/")


def _read_at_start(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Files that engine and gateway read when they start, which their units record."""
    rows = _rows(plan.engines)
    engine = [row.path for row in rows if row.on_change == _RESTART_ENGINE]
    engine += [path for path in package_files.programs() if _is_engine_module(path)]
    engine += [layout.engine_lock(minor) for minor in plan.engine.locks()]
    gateway = [row.path for row in rows if row.on_change == _RELOAD_GATEWAY]
    gateway += [layout.CONVERSATION] if plan.engines > 1 else []
    return {"engine_files": tuple(sorted(engine)), "gateway_files": tuple(gateway)}


class _EngineUnit(NamedTuple):
    """What the unit of several engines writes in another way than that of a single one."""

    environment: str
    caches: str
    socket: str
    server: str
    command_lines: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> _EngineUnit:
        lines, socket = systemd.command_lines(plan.argv), layout.ENGINE_IN_PROC_NET_TCP
        if plan.engines == 1:
            (place,) = engine_places(1)
            return cls(place.environment, plan.cache_directory, socket, place.server, lines)
        # The ports differ in the last digit only, also in hexadecimal.
        own_port = f"--port {layout.ENGINE_PORT}"
        return cls(
            instance(layout.ENGINE_ENVIRONMENT),
            _own_caches(plan, "%i"),
            f"{socket[:-1]}%i",
            INSTANCE_SERVER,
            tuple(f"{own_port[:-1]}%i" if line == own_port else line for line in lines),
        )


def _own_caches(plan: Plan, number: int | str) -> str:
    """The cache directory of one of several engines: two that compile the same at once must not share files."""
    return f"{plan.cache_directory}/engine-{number}"


def _engine_environment(plan: Plan) -> list[dict[str, str]]:
    """The environment of each engine. Of several, each sees its own GPUs and has its own caches."""
    if plan.engines == 1:
        return [dict(plan.environment)]
    found = []
    for number in range(plan.engines):
        own = {
            name: value.replace(plan.cache_directory, _own_caches(plan, number), 1)
            for name, value in plan.environment.items()
        }
        gpus = range(number * plan.gpus_of_each, (number + 1) * plan.gpus_of_each)
        if gpus:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        found.append(own)
    return found


def _variables(plan: Plan) -> dict[str, Any]:
    deployment, machine = plan.deployment, plan.deployment.machine
    weights = plan.selection.precision
    cuda = plan.engine.runs_on == "cuda"
    return {
        **_read_at_start(plan),
        "plan": plan,
        "weights": weights,
        "command_lines": systemd.command_lines(plan.argv),
        "engines": engine_places(plan.engines),
        "several": plan.engines > 1,
        "engine_unit": _EngineUnit.of(plan),
        "engine_environment": _engine_environment(plan),
        "gateway": deployment.gateway,
        "get_routes": gateway_routes.get_routes(plan.served_names),
        "post_routes": gateway_routes.post_routes(plan.model.tasks),
        "messages_routes": gateway_routes.MESSAGES,
        "requests": plan.request_settings,
        "not_public": firewall.NOT_PUBLIC,
        # SSH of a machine that somebody else made stays as it is.
        "firewall": firewall.rules(deployment.access.allow, () if machine.is_own else deployment.access.ssh),
        "readiness_unit_timeout_s": deployment.ready_timeout_s + 60,
        "golden": [dataclasses.asdict(one) for one in plan.model.golden],
        "answers": []
        if plan.model.golden
        else answer_checks(
            tools=bool(plan.arguments.flags.get("enable-auto-tool-choice")),
            context=plan.arguments.context or 0,
        ),
        "gpus": (
            {
                "name": machine.gpu,
                "named": list(plan.selection.gpu.named),
                "count": machine.count,
                "memory_mib": plan.selection.gpu.memory_mib,
            }
            if cuda
            else None
        ),
        "min_ram_bytes": _RAM_PER_PROCESS * (2 * plan.engines + machine.count) if cuda else 0,
        "engine_bytes": _ENGINE_BYTES if cuda else 0,
        "engine_locks": [layout.engine_lock(minor) for minor in plan.engine.locks()],
        "readiness_key": READINESS_KEY,
        "key_limits": key_limits(deployment),
        "places": deployment.sequences,
        "share": share_of_a_key(deployment),
        "locks": tuple(plan.engine.locks()),
        "max_body_bytes": deployment.gateway.max_body_mib * 2**20,
        "min_disk_bytes": plan.disk_gib * 2**30 if cuda else weights.bytes * 2,
        "most_at_once": plan.sequences_of_each,
        "nvswitch": plan.needs_nvswitch,
        "reserve_bytes": 2 * 2**30 if cuda else 64 * 2**20,
        "stop_timeout_s": STOP_TIMEOUT_S,
    }
