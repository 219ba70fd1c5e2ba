"""The release of the machines, and its apt sources: those of this computer, also for another release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Python's minor version in each release, by distribution.
RELEASES = {
    "debian": {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"},
    "ubuntu": {"jammy": "3.10", "noble": "3.12", "plucky": "3.13"},
}
_LINE = re.compile(r"^deb\s+(\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


class SuiteError(Exception):
    """The distribution of this computer, or the release that was asked for, cannot be used for machines."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A distribution release."""

    distribution: str
    codename: str


def suite(os_release: str) -> Suite:
    """Parse /etc/os-release; only Debian and Ubuntu can be bootstrapped with apt."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    fields = {key: value.strip().strip('"') for key, value in fields.items()}
    found = Suite(fields.get("ID", ""), fields.get("VERSION_CODENAME", ""))
    if found.distribution not in {"debian", "ubuntu"} or not found.codename:
        raise SuiteError(
            f"local cloud: its machines run the distribution of this computer, and "
            f"{found.distribution or 'this system'} is neither Debian nor Ubuntu; use one of these",
        )
    return found


def of_machines(this: Suite, release: str) -> Suite:
    """Return the release of the machines: this computer's if `release` is empty, or another of its distribution."""
    if release in {"", this.codename}:
        return this
    known = RELEASES[this.distribution]
    if release not in known:
        raise SuiteError(
            f"local cloud: release {release} is unknown; on this computer machines can have {', '.join(known)}",
        )
    return Suite(this.distribution, release)


def sources(this: str, release: str = "", etc_apt: Path = Path("/etc/apt")) -> str:
    """Return the apt sources of this computer for its release `this`, one stanza each.

    Another `release` takes the place of its name. Of such a release only the updates are used too.
    """
    stanzas: list[str] = []
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            stanzas += _deb822(text, this, release or this)
        elif path.suffix == ".list":
            stanzas += _one_line(text, this, release or this)
    return "\n".join(stanza + "\n" for stanza in stanzas)


def _deb822(text: str, this: str, release: str) -> list[str]:
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        fields = {
            line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines if ":" in line
        }
        suites = fields.get("suites", "").split()
        matching = [found for name in suites if (found := _named(name, this, release))]
        if (
            not matching
            or "deb" not in fields.get("types", "").split()
            or fields.get("enabled", "yes") == "no"
        ):
            continue
        stanza = ["Types: deb", f"URIs: {_uris(fields['uris'])}", f"Suites: {' '.join(matching)}"]
        stanza += [f"Components: {fields.get('components', 'main')}"]
        if fields.get("signed-by", "").startswith("/"):
            stanza.append(f"Signed-By: {fields['signed-by']}")
        stanzas.append("\n".join(stanza))
    return stanzas


def _one_line(text: str, this: str, release: str) -> list[str]:
    stanzas = []
    for line in text.splitlines():
        found = _LINE.match(line.split("#", 1)[0].strip())
        suite_name = _named(found["suite"], this, release) if found else ""
        if not found or not suite_name:
            continue
        stanza = ["Types: deb", f"URIs: {_uris(found['uri'])}", f"Suites: {suite_name}"]
        stanza += [f"Components: {found['components'].strip()}"]
        signed = re.search(r"signed-by=(/\S+)", found["options"] or "")
        if signed:
            stanza.append(f"Signed-By: {signed[1]}")
        stanzas.append("\n".join(stanza))
    return stanzas


def _named(name: str, this: str, release: str) -> str:
    """Return the suite of `release` that corresponds to a suite of this computer's release, or nothing."""
    if release != this:
        wanted = {f"{this}{part}": f"{release}{part}" for part in ("", "-updates", "-security")}
        return wanted.get(name, "")
    return name if name == this or name.startswith((f"{this}-", f"{this}/")) else ""


def _uris(text: str) -> str:
    """Replace a file of mirrors, as cloud images have it, by its first mirror; machines do not have that file."""
    uris = []
    for uri in text.split():
        listed = Path(uri.removeprefix("mirror+file:"))
        if uri.startswith("mirror+file:") and listed.is_file():
            uris += [
                line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()
            ][:1]
        else:
            uris.append(uri)
    return " ".join(uris)
