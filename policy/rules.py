"""The rules of the policy pack over plain properties: each yields a sentence for every violation.

They know resource types and properties of pulumi-vllm, and neither Pulumi nor this repository's code: the pack can
be copied into another repository.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

INSTANCE, VOLUME = "vllm:spheron:Instance", "vllm:spheron:Volume"
FILES, WEIGHTS = "vllm:host:Files", "vllm:host:Weights"
UNIT, FIREWALL = "/etc/systemd/system/vllm.service", "/etc/pulumi-vllm/nftables.nft"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# The only lines of a firewall that open nothing but the gateway and SSH; what else there is may end in drop.
LINES = re.compile(
    r"""table\ inet\ pulumi_vllm(\ \{)? | delete\ table\ inet\ pulumi_vllm | chain\ input\ \{ | \}
    | type\ filter\ hook\ input\ priority\ filter;\ policy\ (accept|drop);
    | iif\ "lo"\ accept
    | ct\ state\ established,related\ accept
    | meta\ l4proto\ \{\ icmp,\ ipv6-icmp\ \}\ accept
    | ip6\ saddr\ fe80::/10\ udp\ dport\ 546\ accept
    | (meta\ nfproto\ ipv[46]|ip6?\ saddr\ \{[\d./:a-f,\ ]+\})\ tcp\ dport\ (443|22)\ accept
    | ((?!accept|jump|goto|return|queue)[^;\#])*\bdrop""",
    re.VERBOSE,
)
Said = Iterator[str]

# What the secrets of such a server look like; the sentences never hold what was found.
SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token of the model hub": re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    "an API key": re.compile(r"\b(sk|readiness)-[A-Za-z0-9_-]{16,}"),
    "a key of the cloud": re.compile(r"\bsai_(pk|sk)_\w{8,}"),
    "a bearer token": re.compile(r"(?i)authorization:\s*bearer\s+[\w.~+/-]{8,}"),
}
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def price_ceiling(machine: Mapping[str, Any], most: float) -> Said:
    """A machine has a ceiling of its own, within the pack's (USD per hour)."""
    ceiling = machine.get("maxUsdPerHour")
    if ceiling is None:
        yield "has no maxUsdPerHour; set machine.max_usd_per_hour"
    elif ceiling > most:
        yield f"may cost ${ceiling:.2f}/h, the most is ${most:.2f}/h; lower machine.max_usd_per_hour"


def total_price(prices: Iterable[float | None], most: float) -> Said:
    """All machines and disks of the stack together, as far as their prices are known (USD per hour)."""
    total = sum(price for price in prices if price is not None)
    if total > most:
        yield f"machines and disks cost ${total:.2f}/h together, the most is ${most:.2f}/h; use fewer or smaller ones"


def volume_kept(volume: Mapping[str, Any]) -> Said:
    """The weights and caches survive a destroy."""
    if volume.get("keep") is False:
        yield "is deleted with the stack: 120 GB would be fetched again; leave out keep, or set it to true"


def pinned_revision(weights: Mapping[str, Any]) -> Said:
    """The same bytes every time: a commit, no branch or tag."""
    revision = str(weights.get("revision", ""))
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        yield f"revision {revision!r} can move; name a commit of 40 hex digits"


def engine_port(files: Mapping[str, str]) -> Said:
    """The engine listens on loopback, and the firewall opens the gateway and SSH alone."""
    for path, text in files.items():
        if path != UNIT and not path.startswith(f"{UNIT}.d/"):
            continue
        words = text.replace("\\\n", " ").replace("=", " ").split()
        hosts = [after for word, after in pairwise(words) if word == "--host"]
        if path == UNIT and not hosts:
            yield f"{path}: starts vLLM without --host, which listens on every address; set it to 127.0.0.1"
        for host in hosts:
            if host not in LOOPBACK:
                yield f"{path}: vLLM listens on {host}, past the gateway; set --host 127.0.0.1"
    if FIREWALL in files:
        yield from (f"{FIREWALL}: {sentence}" for sentence in _opened(files[FIREWALL]))
    elif UNIT in files:
        yield f"{FIREWALL}: is missing; nothing keeps others from the machine's ports"


def _opened(firewall: str) -> Said:
    """What may let others in beside the gateway and SSH."""
    lines = [
        line.strip() for line in firewall.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    for line in lines:
        if not LINES.fullmatch(line):
            yield f"{line[:80]!r} may let others at the engine's port; accept 443 and 22 only, and end with drop"
    *_, last = ["", *(line for line in lines if line != "}")]
    if last not in {"counter drop", "drop"}:
        yield "its last rule is not 'counter drop'; what no rule accepts would come in"


def no_secret(user_data: Any) -> Said:
    """Whoever can read the machine's metadata can read its user data; base64 hides nothing."""
    for text in _texts(user_data):
        for what, shape in SECRETS.items():
            if shape.search(text):
                yield f"the user data holds {what}; secrets go over SSH, as hf_token, keys or ssh_private_key"


def ttl(tags: Mapping[str, str], today: dt.date, most_days: int) -> Said:
    """A stack with a machine has a day on which somebody looks whether it is still needed."""
    remedy = "pulumi stack tag set ttl YYYY-MM-DD"
    written = tags.get("ttl")
    if written is None:
        yield f"has a machine and no tag ttl; run: {remedy}"
        return
    try:
        until = dt.date.fromisoformat(written)
    except ValueError:
        yield f"tag ttl is {written!r}, no date; run: {remedy}"
        return
    if until < today:
        yield f"its time is over since {until}; destroy it, or run: {remedy}"
    elif (until - today).days > most_days:
        yield f"tag ttl {until} is more than {most_days} days away; name a nearer day, and move it when it comes"


def _texts(value: Any) -> Iterator[str]:
    """Every text, and what stands in it as base64."""
    text = value if isinstance(value, str) else json.dumps(value, default=str).replace("\\n", "\n")
    yield text
    for found in _BASE64.findall(text):
        try:
            yield base64.b64decode(found + "=" * (-len(found) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # no base64, or no text
