"""Typed facts about a host, parsed from the output of a probe. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pulumi_vllm.host.process_facts import ProcessFact
from pulumi_vllm.render import layout, package_files
from pulumi_vllm.render.engine_places import EnginePlace, places_of


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file on the host. Its text may hold secrets that nobody recognized, so it appears in no repr."""

    text: str = field(repr=False)
    """The text, in which the host has masked what looks like a secret."""
    mode: str
    owner: str
    sha256: str
    """Digest of the whole text; "" where this is no regular file."""


@dataclass(frozen=True, slots=True)
class UnitFact:
    """A unit as systemd reports it."""

    name: str
    active: str
    main_pid: int
    command_line: tuple[str, ...]
    """Arguments of the running process."""
    declared: str
    """Command line of the unit, with variables expanded as the process got them."""
    needs_reload: bool
    enabled: str
    user: str
    """User that systemd starts the process as."""
    process: ProcessFact | None
    """None while none runs."""
    started_with: Mapping[str, str] | None
    """sha256, by path, of the files with which this invocation was started; None where that was not recorded."""
    recorded_at: float
    """When that was recorded, in seconds since boot."""

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        return self.active == "active" and self.main_pid > 0


@dataclass(frozen=True, slots=True)
class FirewallFact:
    """The rules in the kernel."""

    listed: bool
    """Whether nft listed them."""
    apart: bool
    """Whether the host let nft print the declared rules in a network of their own."""
    rules: str
    declared: str
    """The rules that our file gives, as the same nft prints them; "" where they could not be computed."""
    forwarding: tuple[str, ...]
    """Rules that are not ours and send packets to another address or port."""


@dataclass(frozen=True, slots=True)
class ServerFact:
    """An engine as the gateway sees it."""

    name: str
    status: str
    """UP, DOWN, DRAIN, MAINT or another state."""
    for_s: int
    """Seconds since that state began."""
    address: str
    """Address and port to which it sends requests."""

    @property
    def closed(self) -> bool:
        """Whether somebody has let the gateway send it no more requests."""
        return self.status.startswith(("DRAIN", "MAINT"))


@dataclass(frozen=True, slots=True)
class GatewayFact:
    """The gateway as its admin socket reports it."""

    servers: tuple[ServerFact, ...]
    started_at: float
    """When the process that serves new requests was started, in seconds since boot; a reload starts another one."""
    certificate: str
    """SHA-1 fingerprint of the certificate in its memory; "" where it has none."""
    certificate_file: str
    """SHA-1 fingerprint of the certificate in its file."""
    maps: Mapping[str, MapChanges]
    """By path."""


@dataclass(frozen=True, slots=True)
class MapChanges:
    """How a map in the gateway's memory differs from its file. Entries are without digests of API keys."""

    added: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ManifestFact:
    """A manifest of weights, compared with the files on the volume."""

    repository: str
    revision: str
    sha256: str
    damaged: tuple[str, ...]
    """Files that are missing, have another size, or were written to after their checksum was verified."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    source: str
    type: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as nvidia-smi reports it."""

    name: str
    memory_mib: int
    uuid: str


@dataclass(frozen=True, slots=True)
class CanaryRestart:
    """A time that the canary ended the engine."""

    time: str
    reason: str
    age_s: float
    """Seconds before the probe, by the host's clock; 0 where its time can't be read."""


@dataclass(frozen=True, slots=True)
class CanaryFact:
    """What the last run of the canary saw."""

    age_s: float
    engine: str
    """answers, busy, refuses, fails, starting, down, hung or wrong."""
    observed: str
    gateway: str
    """What the gateway did with the same question: answers, or what came in its place."""
    restarts: tuple[CanaryRestart, ...]
    """When the canary ended an engine that hung or answered wrongly, the last time last."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a host at one moment."""

    boot_id: str
    skew_s: float
    """Seconds by which the host's clock is ahead of this computer's."""
    synchronised: bool | None
    """Whether something synchronises the host's clock; None where that is not known, as in a container."""
    files: Mapping[str, FileFact | None]
    """By path; None where there is no file."""
    drop_ins: Mapping[str, FileFact]
    """By path: the files that override one of our units."""
    folders: Mapping[str, str]
    """Mode and owner of our folders, by path, as in "0755 root:root"."""
    units: Mapping[str, UnitFact]
    mounts: Mapping[str, Mount]
    volume: str
    """Name of our volume, from its marker file; "" where there is none."""
    stamp: tuple[str, ...]
    engine: str | None
    packages: tuple[tuple[str, str], ...]
    """Name and version of every distribution that is installed beside the engine."""
    edited: tuple[str, ...]
    """Source files of vLLM that were written to after its installation; at most five."""
    driver: str | None
    gpus: tuple[Gpu, ...]
    manifests: Mapping[str, ManifestFact]
    """By directory of weights."""
    readiness: Mapping[str, Any] | None
    canaries: Mapping[str, CanaryFact]
    """By the file of its result: one for each engine of which it has ever asked for a token."""
    restored: frozenset[str]
    """Files that were restored on the host after an update that failed."""
    listening: tuple[tuple[str, int], ...]
    engine_units: tuple[str, ...]
    """Units of engines that run or start at boot, also those that nobody declared."""
    os: str
    kernel: str
    python: str
    disk_free: Mapping[str, int]
    firewall: FirewallFact
    gateway: GatewayFact | None
    """None where its admin socket does not answer."""
    access: Mapping[str, str]
    """What decides who can log in and become root, by subject."""

    @classmethod
    def parse(cls, text: str | Mapping[str, Any]) -> Facts:
        """Parse the JSON that a probe printed, or the object in it.

        Raises:
            ValueError: the text is not the output of a probe.
        """
        raw = json.loads(text) if isinstance(text, str) else text
        if not isinstance(raw, Mapping) or raw.get("probe") != 1:
            raise ValueError("not the output of a probe")
        gpus = [row for row in raw.get("gpus") or () if len(row) == 4]  # noqa: PLR2004 (its columns)
        return cls(
            boot_id=str(raw.get("boot_id") or ""),
            skew_s=float(raw.get("skew_s") or 0.0),
            synchronised=raw.get("synchronised"),
            files={path: _file(item) for path, item in (raw.get("files") or {}).items()},
            drop_ins={path: _present(item) for path, item in (raw.get("drop_ins") or {}).items()},
            folders={str(path): str(mode) for path, mode in (raw.get("folders") or {}).items()},
            units={name: _unit(name, item) for name, item in (raw.get("units") or {}).items()},
            mounts={point: Mount(**item) for point, item in (raw.get("mounts") or {}).items()},
            volume=str((raw.get("volume") or {}).get("volume") or ""),
            stamp=tuple(raw.get("stamp") or ()),
            engine=raw.get("engine"),
            packages=tuple((str(name), str(version)) for name, version in raw.get("packages") or ()),
            edited=tuple(map(str, raw.get("edited") or ())),
            driver=gpus[0][3] if gpus else None,
            gpus=tuple(Gpu(row[0], _whole(row[1]), row[2]) for row in gpus),
            manifests={folder: _manifest(item) for folder, item in (raw.get("manifests") or {}).items()},
            readiness=raw.get("readiness") if isinstance(raw.get("readiness"), Mapping) else None,
            canaries={
                path: fact
                for path, item in (raw.get("canaries") or {}).items()
                if (fact := _canary(item, float(raw.get("time") or 0.0)))
            },
            restored=frozenset(raw.get("restored") or ()),
            listening=tuple((str(address), int(port)) for address, port in raw.get("listening") or ()),
            engine_units=tuple(map(str, raw.get("engine_units") or ())),
            os=str((raw.get("os") or {}).get("PRETTY_NAME") or ""),
            kernel=str(raw.get("kernel") or ""),
            python=str(raw.get("python") or ""),
            disk_free=dict(raw.get("disk_free") or {}),
            firewall=_firewall(raw.get("firewall") or {}),
            gateway=_gateway(raw.get("gateway")),
            access={str(name): str(value) for name, value in (raw.get("access") or {}).items()},
        )

    @property
    def engines(self) -> tuple[EnginePlace, ...]:
        """The engines whose units the host has."""
        return places_of(name for name, unit in self.units.items() if unit.active != "missing")

    @property
    def undeclared_engines(self) -> tuple[str, ...]:
        """Engines that run or start at boot beside the declared ones, whose units were asked for."""
        known = set(self.units)
        if len(self.engines) > 1:
            known.discard(layout.ENGINE_UNIT)  # it is asked for on every host
        return tuple(unit for unit in self.engine_units if unit not in known)

    def versions(self) -> dict[str, Any]:
        """Versions of the software and hardware, for the evidence."""
        named = {
            "vllm": self.engine,
            "driver": self.driver,
            "gpus": [gpu.name for gpu in self.gpus] or None,
            "os": self.os,
            "kernel": self.kernel,
            "python": self.python,
        }
        return {name: value for name, value in named.items() if value}


def _file(item: Mapping[str, Any] | None) -> FileFact | None:
    return None if item is None else _present(item)


def _present(item: Mapping[str, Any]) -> FileFact:
    sha256 = str(item["sha256"])
    # The host leaves out the text of a file of our package.
    text = str(item["text"]) or package_files.text(sha256) or ""
    return FileFact(text, str(item["mode"]), str(item["owner"]), sha256)


def _unit(name: str, item: Mapping[str, Any]) -> UnitFact:
    missing = item.get("LoadState") == "not-found"
    process, record = item.get("process"), item.get("record")
    return UnitFact(
        name=name,
        active="missing" if missing else str(item.get("ActiveState") or "unknown"),
        main_pid=_whole(item.get("MainPID")),
        command_line=tuple(item.get("argv") or ()),
        declared=str(item.get("declared") or ""),
        needs_reload=item.get("NeedDaemonReload") == "yes",
        enabled=str(item.get("UnitFileState") or ""),
        user=str(item.get("User") or "root"),
        process=ProcessFact.parse(process, item) if process else None,
        started_with=dict(record["files"]) if record else None,
        recorded_at=float(record["time"]) if record else 0.0,
    )


def _firewall(item: Mapping[str, Any]) -> FirewallFact:
    return FirewallFact(
        listed=bool(item.get("listed")),
        apart=bool(item.get("apart")),
        rules=str(item.get("rules") or ""),
        declared=str(item.get("declared") or ""),
        forwarding=tuple(item.get("forwarding") or ()),
    )


def _gateway(item: Mapping[str, Any] | None) -> GatewayFact | None:
    if item is None:
        return None
    certificate = item["certificate"]
    return GatewayFact(
        servers=tuple(
            ServerFact(str(one["name"]), str(one["status"]), _whole(one["seconds"]), str(one["address"]))
            for one in item["servers"]
        ),
        started_at=float(item["started"]),
        certificate=str(certificate["memory"]),
        certificate_file=str(certificate["file"]),
        maps={
            path: MapChanges(tuple(map(str, one["added"])), tuple(map(str, one["missing"])))
            for path, one in item["maps"].items()
        },
    )


def _canary(item: Any, now: float) -> CanaryFact | None:
    if not isinstance(item, Mapping):
        return None
    restarts = (item.get("memory") or {}).get("restarts") or ()
    return CanaryFact(
        age_s=float(item["age_s"]),
        engine=str(item.get("engine") or ""),
        observed=str(item.get("observed") or ""),
        gateway=str(item.get("gateway") or ""),
        restarts=tuple(
            CanaryRestart(str(one.get("time")), str(one.get("reason")), _age_s(str(one.get("time")), now))
            for one in restarts
        ),
    )


def _age_s(time: str, now: float) -> float:
    try:
        return now - datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def _manifest(item: Mapping[str, Any]) -> ManifestFact:
    listed, sizes = item.get("listed") or {}, item.get("sizes") or {}
    changed = item.get("changed") or ()
    return ManifestFact(
        repository=str(item.get("repository") or ""),
        revision=str(item.get("revision") or ""),
        sha256=str(item.get("sha256") or ""),
        damaged=tuple(
            sorted(
                name
                for name, size in sizes.items()
                if size is None or size != listed.get(name, size) or name in changed
            )
        ),
    )


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
