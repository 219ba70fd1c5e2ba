"""The release of this computer and its apt sources, from which the machines are built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^deb\s+(\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


class SuiteError(Exception):
    """The distribution of this computer cannot be used for machines."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A distribution release."""

    distribution: str
    codename: str
    version: str


def suite(os_release: str) -> Suite:
    """Parse /etc/os-release; only Debian and Ubuntu can be bootstrapped with apt."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    fields = {key: value.strip().strip('"') for key, value in fields.items()}
    found = Suite(fields.get("ID", ""), fields.get("VERSION_CODENAME", ""), fields.get("VERSION_ID", ""))
    if found.distribution not in {"debian", "ubuntu"} or not found.codename:
        raise SuiteError(
            f"local cloud: its machines run the release of this computer, and {found.distribution or 'this system'} "
            "is neither Debian nor Ubuntu; use one of these",
        )
    return found


def sources(codename: str, etc_apt: Path = Path("/etc/apt")) -> str:
    """Return the apt sources of this computer for a release, one stanza each."""
    stanzas: list[str] = []
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            stanzas += _deb822(text, codename)
        elif path.suffix == ".list":
            stanzas += _one_line(text, codename)
    return "\n".join(stanza + "\n" for stanza in stanzas)


def _deb822(text: str, codename: str) -> list[str]:
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        fields = {
            line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines if ":" in line
        }
        suites = fields.get("suites", "").split()
        matching = [name for name in suites if _of(name, codename)]
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


def _one_line(text: str, codename: str) -> list[str]:
    stanzas = []
    for line in text.splitlines():
        found = _LINE.match(line.split("#", 1)[0].strip())
        if not found or not _of(found["suite"], codename):
            continue
        stanza = ["Types: deb", f"URIs: {_uris(found['uri'])}", f"Suites: {found['suite']}"]
        stanza += [f"Components: {found['components'].strip()}"]
        signed = re.search(r"signed-by=(/\S+)", found["options"] or "")
        if signed:
            stanza.append(f"Signed-By: {signed[1]}")
        stanzas.append("\n".join(stanza))
    return stanzas


def _of(name: str, codename: str) -> bool:
    return name == codename or name.startswith((f"{codename}-", f"{codename}/"))


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
