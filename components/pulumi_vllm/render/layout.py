"""Every path, unit and port on the host, each written once. Templates read this module as `layout`."""

from __future__ import annotations

from typing import Final

from pulumi_vllm.plan.engine_count import MOST_ENGINES
from pulumi_vllm.plan.host_paths import (
    CACHES,
    ENGINE_ADDRESS,
    ENGINE_MODULES,
    ENGINE_PORT,
    MODELS,
    REQUESTS_CONFIG,
    WEIGHTS,
)

# The volume
VOLUME_MARKER: Final = f"{MODELS}/.pulumi-vllm-volume"
"""Holds the name of the volume, so that a wrong disk on `MODELS` is recognized."""

# Configuration. Everything in these two directories is ours.
CONFIG: Final = "/etc/pulumi-vllm"
PROGRAMS: Final = "/usr/local/lib/pulumi-vllm"

CANARY_CONFIG: Final = f"{CONFIG}/canary.json"
LIFETIME_CONFIG: Final = f"{CONFIG}/lifetime.json"
NOTIFY_CONFIG: Final = f"{CONFIG}/notify.json"
FIREWALL_RULES: Final = f"{CONFIG}/nftables.nft"
INSTALL_CONFIG: Final = f"{CONFIG}/install.json"
PREFLIGHT_CONFIG: Final = f"{CONFIG}/preflight.json"
READINESS_CONFIG: Final = f"{CONFIG}/readiness.json"
WEIGHTS_CONFIG: Final = f"{CONFIG}/weights.json"
ENGINE_ENVIRONMENT: Final = f"{CONFIG}/vllm.env"
UV_LOCK: Final = f"{CONFIG}/requirements-uv.txt"


def engine_lock(python_minor: str) -> str:
    """The lock of the engine for one minor version of Python, such as "3.12"."""
    return f"{CONFIG}/requirements-{python_minor}.txt"


GATEWAY_CONFIG: Final = f"{CONFIG}/gateway"
CA_CERTIFICATE: Final = f"{GATEWAY_CONFIG}/ca.pem"
HAPROXY_CONFIG: Final = f"{GATEWAY_CONFIG}/haproxy.cfg"
KEYS_MAP: Final = f"{GATEWAY_CONFIG}/keys.map"
LIMITS_MAP: Final = f"{GATEWAY_CONFIG}/limits.map"
HEALTH_MAP: Final = f"{GATEWAY_CONFIG}/health.map"
GATEWAY_CERTIFICATE: Final = f"{GATEWAY_CONFIG}/tls.pem"

SECRETS: Final = f"{CONFIG}/secrets"
HUB_TOKEN: Final = f"{SECRETS}/hf-token"
NOTIFY_URL: Final = f"{SECRETS}/notify-url"
READINESS_TOKEN: Final = f"{SECRETS}/readiness-token"

# Settings of the system's own services
NEEDRESTART: Final = "/etc/needrestart/conf.d/pulumi-vllm.conf"
UNATTENDED_UPGRADES: Final = "/etc/apt/apt.conf.d/52pulumi-vllm"

# Programs
BOOTSTRAP: Final = f"{PROGRAMS}/bootstrap"
"""It runs from this path, because its stamp is its own digest."""
CANARY: Final = f"{PROGRAMS}/canary"
CONVERSATION: Final = f"{PROGRAMS}/conversation.lua"
"""Where several engines share a host, the gateway's program that tells conversations apart."""
DRAIN: Final = f"{PROGRAMS}/drain"
FIREWALL: Final = f"{PROGRAMS}/firewall"
"""Loads firewall rules on trial: the host restores the previous rules unless they are kept in time."""
INSTALL: Final = f"{PROGRAMS}/install"
LIFETIME: Final = f"{PROGRAMS}/lifetime"
"""Powers the machine off when its period is over, or when nobody uses it."""
NOTIFY: Final = f"{PROGRAMS}/notify"
PREFLIGHT: Final = f"{PROGRAMS}/preflight"
READINESS: Final = f"{PROGRAMS}/readiness"
RECORD_START: Final = f"{PROGRAMS}/record-start"
ROLLBACK: Final = f"{PROGRAMS}/rollback"
"""Keeps the files and the engine with which vLLM was last ready, and restores them."""
DOWNLOAD_WEIGHTS: Final = f"{PROGRAMS}/weights"

# State that survives a reboot
STATE: Final = "/var/lib/pulumi-vllm"
BOOTSTRAP_STAMP: Final = f"{STATE}/bootstrap.stamp"
"""Holds the sha256 of the bootstrap script that last ran to its end."""
CANARY_RESULT: Final = f"{STATE}/canary.json"
"""What the last run of the canary saw, and the restarts that it caused."""
LAST_UP: Final = f"{STATE}/last-up"
"""Holds when the period began, by the clock of whoever ran `pulumi up`, and its age when this was written."""
LIFETIME_STATE: Final = f"{STATE}/lifetime.json"
READY_FILES: Final = f"{STATE}/ready.json"
"""What vLLM was last ready with. It exists once vLLM has been ready on this host."""
RESTORED_FILES: Final = f"{STATE}/restored.json"
"""Paths of the files that the last rollback restored, until vLLM is ready after another update."""
ENGINE_HOME: Final = "/var/lib/vllm"
VENV: Final = "/opt/vllm"
ENGINE_PYTHON: Final = f"{VENV}/bin/python"
ENGINE_STAMP: Final = f"{VENV}/.stamp"
"""Holds the sha256 of the lock from which the engine was installed."""

# State that a reboot clears
RUNTIME: Final = "/run/pulumi-vllm"
BOOTSTRAP_LOCK: Final = "/run/pulumi-vllm-bootstrap.lock"
FIREWALL_TRIAL: Final = f"{RUNTIME}/firewall"
"""Exists while firewall rules are on trial; holds the new rules and the previous ones."""
INSTALL_PROGRESS: Final = f"{RUNTIME}/install.progress.json"
PREFLIGHT_RESULT: Final = f"{RUNTIME}/preflight.json"
PREFLIGHT_PASSED: Final = f"{RUNTIME}/preflight.passed"
"""Exists while the last preflight has passed; other units assert it."""
READINESS_ENGINE: Final = f"{RUNTIME}/readiness.engine"
"""Names the one engine that the next readiness check is about, by its unit. Without it, all are checked."""
READINESS_RESULT: Final = f"{RUNTIME}/readiness.json"
ROLLBACK_RESULT: Final = f"{RUNTIME}/rollback.json"
START_LOCK: Final = "/run/pulumi-vllm-start.lock"
"""Held by one of several engines while it switches to the installed engine, or verifies the weights."""
STARTS: Final = f"{RUNTIME}/starts"
"""One record for each unit that `record-start` recorded: the files with which it started."""
WEIGHTS_PROGRESS: Final = f"{RUNTIME}/weights.progress.json"
GATEWAY_RUNTIME: Final = "/run/pulumi-vllm-gateway"
GATEWAY_ADMIN_SOCKET: Final = f"{GATEWAY_RUNTIME}/admin.sock"
GATEWAY_ENVIRONMENT: Final = f"{GATEWAY_RUNTIME}/environment"
GATEWAY_PID: Final = f"{GATEWAY_RUNTIME}/haproxy.pid"

OLDEST_PYTHON: Final = "3.10"
"""The oldest Python that the programs of the host can be run by: that of Ubuntu 22.04. `./dev check` reads them so."""

# Units
UNITS_DIRECTORY: Final = "/etc/systemd/system"
MOUNT_UNIT: Final = "models.mount"
"""systemd derives this name from the mount point, `MODELS`."""
INSTALL_UNIT: Final = "vllm-install.service"
PREFLIGHT_UNIT: Final = "vllm-preflight.service"
ROLLBACK_UNIT: Final = "vllm-rollback.service"
WEIGHTS_UNIT: Final = "vllm-weights.service"
ENGINE_UNIT: Final = "vllm.service"
ENGINE_TEMPLATE: Final = "vllm@.service"
"""The unit of each of several engines on a host; engine_places.py has their names."""
EVERY_INSTANCE: Final = ENGINE_TEMPLATE.replace("@", "@*")
"""The units of several engines, as a pattern for systemctl."""
GATEWAY_UNIT: Final = "haproxy.service"
READINESS_UNIT: Final = "vllm-readiness.service"
FIREWALL_UNIT: Final = "vllm-firewall.service"
CANARY_UNIT: Final = "vllm-canary.service"
CANARY_TIMER: Final = "vllm-canary.timer"
LIFETIME_UNIT: Final = "vllm-lifetime.service"
LIFETIME_TIMER: Final = "vllm-lifetime.timer"
NOTIFY_UNIT: Final = "vllm-notify@.service"
"""A template: its instance is named after the unit that has failed."""
LIFETIME_NOTICE_UNIT: Final = NOTIFY_UNIT.replace("@", f"@{LIFETIME_UNIT}")
"""Sends the message that `LIFETIME` has written."""

FIREWALL_TABLE: Final = "inet pulumi_vllm"
"""Family and name of the nftables table."""

UNITS: Final = (
    MOUNT_UNIT,
    INSTALL_UNIT,
    WEIGHTS_UNIT,
    PREFLIGHT_UNIT,
    ENGINE_UNIT,
    GATEWAY_UNIT,
    READINESS_UNIT,
    ROLLBACK_UNIT,
    FIREWALL_UNIT,
    CANARY_UNIT,
    CANARY_TIMER,
    LIFETIME_UNIT,
    LIFETIME_TIMER,
)
"""All of our units."""


def unit_file(unit: str) -> str:
    """Path of a unit's file."""
    return f"{UNITS_DIRECTORY}/{unit}"


FILES_ELSEWHERE: Final = (UNATTENDED_UPGRADES, NEEDRESTART, unit_file(NOTIFY_UNIT))
"""Our files that are neither below `CONFIG` or `PROGRAMS` nor the file of one of `UNITS`."""

FOLDERS: Final = {
    **dict.fromkeys((CONFIG, GATEWAY_CONFIG, PROGRAMS, STATE), "0755 root:root"),
    SECRETS: "0700 root:root",
}
"""Mode and owner of the folders that the bootstrap makes. Who can write to one can replace every file in it."""


# Addresses and ports
LOOPBACK: Final = ENGINE_ADDRESS
GATEWAY_PORT: Final = 443
SSH_PORT: Final = 22
METRICS_PORT: Final = 8405
"""HAProxy's Prometheus exporter, on loopback only."""
ENGINE_URL: Final = f"http://{ENGINE_ADDRESS}:{ENGINE_PORT}"
GATEWAY_URL: Final = f"https://{LOOPBACK}:{GATEWAY_PORT}"
ENGINE_IN_PROC_NET_TCP: Final = (
    "".join(f"{int(octet):02X}" for octet in reversed(ENGINE_ADDRESS.split("."))) + f":{ENGINE_PORT:04X}"
)
"""The engine's address as the kernel's socket table shows it: hexadecimal, the address in little-endian order.

Ports of several engines follow each other, and differ in the last digit only: 8000 is 1F40.
"""

__all__ = [
    "CACHES",
    "ENGINE_ADDRESS",
    "ENGINE_MODULES",
    "ENGINE_PORT",
    "MODELS",
    "MOST_ENGINES",
    "REQUESTS_CONFIG",
    "WEIGHTS",
]  # re-exported; all else is defined here
