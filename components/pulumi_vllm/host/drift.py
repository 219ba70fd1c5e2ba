"""Drift: differences between what was declared for a host and the facts that a probe observed. Pure."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pulumi_vllm.host.facts import Facts, FileFact, ManifestFact, UnitFact


class Difference(NamedTuple):
    """Something on the host that is not as declared, and how `up` repairs it."""

    subject: str
    observed: str
    """What was observed and what was declared, after the name of the subject."""
    remedy: str
    """What `up` does, or what a person has to do."""
    commands: tuple[str, ...] = ()
    restarts_engine: bool = False
    """Whether vLLM has to be restarted, which the provider does after it has drained the gateway."""
    loads_firewall: bool = False
    """Whether the firewall's rules have to be loaded, which the provider does on trial."""
    engine: str = ""
    """The unit of the only engine that has to be restarted; empty if it is every one."""

    @property
    def repairable(self) -> bool:
        """Whether `up` repairs it."""
        return bool(self.commands) or self.restarts_engine or self.loads_firewall

    @property
    def sentence(self) -> str:
        """The whole difference in one sentence."""
        return f"{self.subject} {self.observed}; {self.remedy}"


MANIFEST = ".manifest.json"
AS_DECLARED = "as-declared"
"""The process runs with the arguments of its unit."""
NOT_AS_DECLARED = "other arguments than its unit"


class ObservedFiles(NamedTuple):
    """The files as they are on the host, and which of them differ from the declared ones."""

    texts: dict[str, str]
    attributes: dict[str, str]
    """Mode and owner, by path, as in "0644 root:root"."""
    changed: tuple[str, ...]


class ObservedUnits(NamedTuple):
    """The units as they are on the host, and a description of each problem."""

    states: dict[str, str]
    command_line: str
    problems: tuple[str, ...]


def files(
    texts: Mapping[str, str],
    attributes: Mapping[str, str],
    *,
    owned: Iterable[str],
    facts: Facts,
    redact: Callable[[str, FileFact], str],
) -> ObservedFiles:
    """Compare the declared `texts` and `attributes` with the files in `owned`, and with drop-ins nobody declared.

    `redact` gets the path and a file, and returns its text without secrets, which is the declared one only if the whole
    file is as declared.
    """
    owned = set(owned)
    present = {path: fact for path in owned if (fact := facts.files.get(path)) is not None}
    undeclared = {path: fact.text for path, fact in facts.drop_ins.items() if path not in owned}
    observed = {path: redact(path, fact) for path, fact in present.items()} | undeclared
    modes = {path: f"{fact.mode} {fact.owner}" for path, fact in present.items()}
    modes |= {path: attributes[path] for path in undeclared if path in attributes}
    other_text = {path for path in {*observed, *texts} if observed.get(path) != texts.get(path)}
    other_mode = {path for path, mode in modes.items() if mode != attributes.get(path)} - other_text
    return ObservedFiles(observed, modes, (*sorted(other_text), *sorted(other_mode)))


def units(names: Iterable[str], facts: Facts) -> ObservedUnits:
    """Compare the states of the units with "active", and the processes of engines with their command lines."""
    states = {name: facts.units[name].active if name in facts.units else "missing" for name in names}
    problems = [f"{name} is {state}" for name, state in states.items() if state != "active"]
    others = [unit for unit in with_other_arguments(facts) if unit in states]
    problems += [
        f"{unit.removesuffix('.service')} runs with other arguments than its unit" for unit in others
    ]
    return ObservedUnits(states, NOT_AS_DECLARED if others else AS_DECLARED, tuple(sorted(problems)))


def with_other_arguments(facts: Facts) -> tuple[str, ...]:
    """The engines whose process runs with other arguments than its unit has."""
    known = ((place.unit, facts.units[place.unit]) for place in facts.engines)
    return tuple(name for name, fact in known if fact.active == "active" and not process_matches(fact))


def volume(facts: Facts, *, name: str, unit_sha256: str | None) -> tuple[Difference, ...]:
    """Compare what is mounted with the volume `name`, and the mount unit with the digest of its declared text."""
    mount, unit = facts.mounts.get(layout.MODELS), layout.unit_file(layout.MOUNT_UNIT)
    found = []
    if mount is not None and facts.volume != name:
        found.append(
            Difference(
                layout.MODELS,
                f"is another file system ({mount.source}, {mount.type}), declared the volume {name}",
                f"`pulumi up` unmounts nothing that is not its own; run `umount {layout.MODELS}` on the host",
            )
        )
    elif mount is not None and not mount.writable:
        found.append(
            Difference(
                layout.MODELS,
                "is mounted read-only, declared writable",
                "`pulumi up` mounts it writable",
                (f"mount -o remount,rw {layout.MODELS}",),
            )
        )
    fact = facts.files.get(unit)
    if unit_sha256 is not None and (fact is None or fact.sha256 != unit_sha256):
        observed = "has another text than declared" if fact else "is missing"
        found.append(
            Difference(unit, observed, "`pulumi up` restores it", ("systemctl daemon-reload",)),
        )
    return tuple(found)


def manifest(fact: ManifestFact, *, directory: str, sha256: str | None) -> tuple[Difference, ...]:
    """Compare the manifest on the volume with the one of the last `up`. It lists the hashes that weights must have."""
    # Earlier versions stored what the login shell printed before the hash.
    if sha256 is None or not re.fullmatch("[0-9a-f]{64}", sha256) or fact.sha256 == sha256:
        return ()
    path = f"{directory}/{MANIFEST}"
    return (
        Difference(
            path,
            "lists other files or hashes than at the last `pulumi up`",
            "`pulumi up` asks the model hub again and hashes every file",
            (f"rm -f {shlex.quote(path)}",),
        ),
    )


def process_matches(unit: UnitFact) -> bool:
    """Whether the process runs with the arguments of its unit. Without enough information, assume that it does."""
    # A command line of one word is a title that the process gave itself.
    if not unit.declared or len(unit.command_line) <= 1:
        return True
    return _without_quotes(" ".join(unit.command_line)) == _without_quotes(unit.declared)


def _without_quotes(command_line: str) -> str:
    """Drop what depends on systemd's version (quotes, backslashes) and on how the line was folded (blanks)."""
    return " ".join(command_line.replace("\\", "").replace('"', "").replace("'", "").split())
