"""From a probe's text to typed facts, and from facts to what differs. Pure: no machine, no clock."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

_LOOPBACK = ("127.", "::1", "::ffff:127.")


class WantedFile(Protocol):
    """What `differences` needs to know of a file; a rendered HostFile will do."""

    @property
    def path(self) -> str:
        """Absolute path on the host."""

    @property
    def text(self) -> str:
        """Its whole text."""

    @property
    def mode(self) -> str:
        """Octal, four digits."""

    @property
    def owner(self) -> str:
        """user:group."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file as it is on the host; the text may hold secrets and stays out of every repr."""

    text: str = field(repr=False)
    mode: str
    owner: str


@dataclass(frozen=True, slots=True)
class UnitFact:
    """A unit as systemd sees it."""

    name: str
    active: str
    sub: str
    result: str
    restarts: int
    started_at: float
    main_pid: int
    command_line: tuple[str, ...]
    declared: str
    needs_reload: bool
    enabled: str
    stale: bool
    """Whether a file of the unit is newer than the running process."""


@dataclass(frozen=True, slots=True)
class ManifestFact:
    """The weights that a manifest claims, against the sizes on the disk."""

    repository: str
    revision: str
    sha256: str
    damaged: tuple[str, ...]
    """Files that are missing, of another size, or written to since their hash was seen right."""


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted on a point."""

    source: str
    type: str
    options: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as nvidia-smi names it."""

    name: str
    memory_mib: int
    uuid: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as wanted: a line of a file, a mode, a unit. None: not there."""

    what: str
    wanted: str | None
    found: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """A host at one moment."""

    boot_id: str
    files: Mapping[str, FileFact | None]
    drop_ins: Mapping[str, str]
    """Files that override a unit of ours and that nobody declared, with their text."""
    units: Mapping[str, UnitFact]
    mounts: Mapping[str, Mount]
    stamp: tuple[str, ...]
    engine: str | None
    driver: str | None
    gpus: tuple[Gpu, ...]
    manifests: Mapping[str, ManifestFact]
    manifest: ManifestFact | None
    readiness: Mapping[str, Any] | None
    listening: tuple[tuple[str, int], ...]
    os: str
    kernel: str
    python: str
    bootstrap: str
    disk_free: Mapping[str, int]

    @classmethod
    def parse(cls, text: str | Mapping[str, Any]) -> Facts:
        """From the probe's JSON, or from the object it held.

        Raises:
            ValueError: it is no probe's answer.
        """
        raw = json.loads(text) if isinstance(text, str) else text
        if not isinstance(raw, Mapping) or raw.get("probe") != 1:
            raise ValueError("not the answer of a probe")
        gpus = [row for row in raw.get("gpus") or () if len(row) == 4]  # noqa: PLR2004 (its columns)
        return cls(
            boot_id=str(raw.get("boot_id") or ""),
            files={path: _file(item) for path, item in (raw.get("files") or {}).items()},
            drop_ins=dict(raw.get("drop_ins") or {}),
            units={name: _unit(name, item) for name, item in (raw.get("units") or {}).items()},
            mounts={point: Mount(**item) for point, item in (raw.get("mounts") or {}).items()},
            stamp=tuple(raw.get("stamp") or ()),
            engine=raw.get("engine"),
            driver=gpus[0][3] if gpus else None,
            gpus=tuple(Gpu(row[0], _whole(row[1]), row[2]) for row in gpus),
            manifests={place: _manifest(item) for place, item in (raw.get("manifests") or {}).items()},
            manifest=None,
            readiness=raw.get("readiness") if isinstance(raw.get("readiness"), Mapping) else None,
            listening=tuple((str(address), int(port)) for address, port in raw.get("listening") or ()),
            os=str((raw.get("os") or {}).get("PRETTY_NAME") or ""),
            kernel=str(raw.get("kernel") or ""),
            python=str(raw.get("python") or ""),
            bootstrap=str(raw.get("bootstrap") or ""),
            disk_free=dict(raw.get("disk_free") or {}),
        )

    def seen_by(self, declared: Iterable[str], weights: str | None = None) -> Facts:
        """The same facts for one reader: its own drop-ins are no news, its folder's manifest is the manifest."""
        known = set(declared)
        return replace(
            self,
            drop_ins={path: text for path, text in self.drop_ins.items() if path not in known},
            manifest=self.manifests.get(weights) if weights is not None else None,
        )

    def process_matches(self, unit: str) -> bool:
        """Whether the unit's process runs with the arguments its unit declares; unknown counts as yes."""
        fact = self.units.get(unit)
        if fact is None or not fact.command_line or not fact.declared or len(fact.command_line) == 1:
            return True  # not running, or a process that gave itself a title
        return _bare(" ".join(fact.command_line)) == _bare(fact.declared)

    def open_ports(self) -> tuple[int, ...]:
        """Ports that listen beyond loopback."""
        return tuple(sorted({port for address, port in self.listening if not address.startswith(_LOOPBACK)}))

    def versions(self) -> dict[str, Any]:
        """What runs here, for the evidence."""
        named = {
            "vllm": self.engine,
            "driver": self.driver,
            "gpus": [gpu.name for gpu in self.gpus] or None,
            "os": self.os,
            "kernel": self.kernel,
            "python": self.python,
        }
        return {name: value for name, value in named.items() if value}


def differences(
    wanted: Iterable[WantedFile], facts: Facts, units: Mapping[str, str] | None = None
) -> tuple[Difference, ...]:
    """Line by line for files, then modes, owners, unexpected drop-ins and the units' states."""
    files = list(wanted)
    found: list[Difference] = []
    for file in files:
        fact = facts.files.get(file.path)
        if fact is None:
            found.append(Difference(file.path, file.text, None))
            continue
        found += _lines(file.path, file.text, fact.text)
        found += [
            Difference(f"{file.path} {what}", want, have)
            for what, want, have in (("mode", file.mode, fact.mode), ("owner", file.owner, fact.owner))
            if want != have
        ]
    declared = {file.path for file in files}
    found += [Difference(path, None, text) for path, text in facts.drop_ins.items() if path not in declared]
    for name, state in (units or {}).items():
        unit = facts.units.get(name)
        if unit is None or unit.active != state:
            found.append(Difference(name, state, unit.active if unit else None))
    return tuple(found)


def _lines(path: str, wanted: str, found: str) -> list[Difference]:
    before, after = wanted.splitlines(keepends=True), found.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [
        Difference(f"{path}:{start + 1}", _joined(before[start:end]), _joined(after[begin:stop]))
        for kind, start, end, begin, stop in matcher.get_opcodes()
        if kind != "equal"
    ]


def _joined(lines: list[str]) -> str | None:
    return "".join(lines) if lines else None


def _bare(line: str) -> str:
    """Quotes and backslashes depend on systemd's version, blanks on how a line was folded."""
    return " ".join(line.replace("\\", "").replace('"', "").replace("'", "").split())


def _file(item: Mapping[str, Any] | None) -> FileFact | None:
    return None if item is None else FileFact(str(item["text"]), str(item["mode"]), str(item["owner"]))


def _unit(name: str, item: Mapping[str, Any]) -> UnitFact:
    since, newest = float(item.get("since") or 0), float(item.get("newest") or 0)
    missing = item.get("LoadState") == "not-found"
    pid = _whole(item.get("MainPID"))
    return UnitFact(
        name=name,
        active="missing" if missing else str(item.get("ActiveState") or "unknown"),
        sub=str(item.get("SubState") or ""),
        result=str(item.get("Result") or ""),
        restarts=_whole(item.get("NRestarts")),
        started_at=since,
        main_pid=pid,
        command_line=tuple(item.get("argv") or ()),
        declared=str(item.get("declared") or ""),
        needs_reload=item.get("NeedDaemonReload") == "yes",
        enabled=str(item.get("UnitFileState") or ""),
        stale=bool(pid and since and newest > since + 1.0),
    )


def _manifest(item: Mapping[str, Any]) -> ManifestFact:
    wanted, sizes = item.get("wanted") or {}, item.get("sizes") or {}
    changed = item.get("changed") or ()
    return ManifestFact(
        repository=str(item.get("repository") or ""),
        revision=str(item.get("revision") or ""),
        sha256=str(item.get("sha256") or ""),
        damaged=tuple(
            sorted(
                name
                for name, size in sizes.items()
                if size is None or size != wanted.get(name, size) or name in changed
            )
        ),
    )


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
