"""Drift of the installed engine: lock, packages, driver and GPUs against those of the last `up`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.host.drift import Difference
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.host.facts import Facts, FileFact

# Without its stamp, the engine is installed again from the lock.
_INSTALL: Final = (
    "`pulumi up` downloads and installs it again from its lock, and restarts vLLM",
    (f"rm -f {layout.ENGINE_STAMP}",),
)
_LOCKED: Final = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
_SHOWN_PACKAGES: Final = 5


def installed(facts: Facts, evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """Compare what is installed with its lock, and with the `evidence` of the last `up`."""
    yield from _lock(facts)
    yield from _packages(facts)
    yield from _versions(facts, evidence)
    if facts.edited:
        observed = f"were written to after its installation: {', '.join(facts.edited)}"
        yield Difference("source files of vLLM", observed, *_INSTALL, restarts_engine=True)


def _lock(facts: Facts) -> Iterator[Difference]:
    runs, locks = any(facts.units[place.unit].runs for place in facts.engines), _locks(facts)
    if runs and locks and not _installed_from(facts):
        observed = "was installed from another lock than the one on disk"
        remedy = "`pulumi up` installs it from the lock on disk and restarts vLLM"
        yield Difference("installed vLLM", observed, remedy, restarts_engine=True)


def _packages(facts: Facts) -> Iterator[Difference]:
    locks = _installed_from(facts)
    # The stamp of an engine that came with an image may name several locks. Only one of them can be installed.
    if len(locks) != 1:
        return
    locked = {_name(name): version for name, version in _LOCKED.findall(locks[0].text)}
    present = [(_name(name), version) for name, version in facts.packages]
    other = {
        **{
            name: f"{name} is missing (locked {locked[name]})"
            for name in set(locked) - {n for n, _ in present}
        },
        **{
            name: f"{name} is {version} ({f'locked {locked[name]}' if name in locked else 'not locked'})"
            for name, version in present
            if locked.get(name) != version
        },
    }
    if other:
        listed = [other[name] for name in sorted(other)]
        more = len(listed) - _SHOWN_PACKAGES
        shown = "; ".join((*listed[:_SHOWN_PACKAGES], *([f"and {more} more"] if more > 0 else ())))
        yield Difference(
            "packages of vLLM", f"are not those of the lock: {shown}", *_INSTALL, restarts_engine=True
        )


def _locks(facts: Facts) -> list[FileFact]:
    prefix = layout.engine_lock("").removesuffix(".txt")
    return [fact for path, fact in facts.files.items() if fact and path.startswith(f"{prefix}3.")]


def _installed_from(facts: Facts) -> list[FileFact]:
    return [lock for lock in _locks(facts) if lock.sha256 in facts.stamp]


def _name(distribution: str) -> str:
    """Return a name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _versions(facts: Facts, evidence: Mapping[str, Any]) -> Iterator[Difference]:
    now = facts.versions()
    check = ("`pulumi up` checks the host, drains the gateway and restarts vLLM", ())
    for name, subject, (remedy, commands) in (
        ("vllm", "installed vLLM", _INSTALL),
        ("driver", "NVIDIA driver", check),
        ("gpus", "list of GPUs", check),
    ):
        before = evidence.get(name)
        if before and before != now.get(name):
            observed = f"is {_words(now.get(name))}, and was {_words(before)} at the last `pulumi up`"
            yield Difference(subject, observed, remedy, commands, restarts_engine=True)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{value.count(one)}x {one}" for one in dict.fromkeys(value))
    return str(value or "not found")
