"""The rules of the policy pack. Each rule reads plain properties and yields a message for every violation.

The rules know the resource types and properties of pulumi-vllm. They import neither Pulumi nor other code of this
repository, so that the pack can be copied into another repository.
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
# Lines that open nothing except the gateway and SSH. Any other line must end in drop.
LINES = re.compile(
    r"""table\ inet\ pulumi_vllm(\ \{)? | delete\ table\ inet\ pulumi_vllm | chain\ (input|output)\ \{ | \}
    | type\ filter\ hook\ output\ priority\ filter;\ policy\ accept;
    | meta\ skuid\ vllm\ (ct\ state\ established,related|th\ dport\ 53|oif\ "lo"\ tcp\ dport\ 32768-65535)\ accept
    | type\ filter\ hook\ input\ priority\ filter;\ policy\ (accept|drop);
    | iif\ "lo"\ accept
    | ct\ state\ established,related\ accept
    | meta\ l4proto\ \{\ icmp,\ ipv6-icmp\ \}\ accept
    | ip6\ saddr\ fe80::/10\ udp\ dport\ 546\ accept
    | (meta\ nfproto\ ipv[46]|ip6?\ saddr\ \{[\d./:a-f,\ ]+\})\ tcp\ dport\ (443|22)\ accept
    | ((?!accept|jump|goto|return|queue)[^;\#])*\b(drop|reject)""",
    re.VERBOSE,
)
Messages = Iterator[str]

# The forms of the secrets of such a server. A message never contains the secret that was found.
SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token of the model hub": re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    "an API key": re.compile(r"\b(sk|readiness)-[A-Za-z0-9_-]{16,}"),
    "a key of the cloud": re.compile(r"\bsai_(pk|sk)_\w{8,}"),
    "a bearer token": re.compile(r"(?i)authorization:\s*bearer\s+[\w.~+/-]{8,}"),
}
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def price_ceiling(machine: Mapping[str, Any], most: float) -> Messages:
    """Check that a machine has a price ceiling, and that it is within the pack's (USD per hour)."""
    ceiling = machine.get("maxUsdPerHour")
    if ceiling is None:
        yield "has no maxUsdPerHour; set machine.max_usd_per_hour"
    elif ceiling > most:
        yield f"may cost ${ceiling:.2f}/h, but the limit is ${most:.2f}/h; lower machine.max_usd_per_hour"


def total_price(prices: Iterable[float | None], most: float) -> Messages:
    """Check the total of the known prices of a stack's machines and volumes (USD per hour)."""
    total = sum(price for price in prices if price is not None)
    if total > most:
        yield f"machines and volumes cost ${total:.2f}/h together, but the limit is ${most:.2f}/h; use fewer of them"


def volume_kept(volume: Mapping[str, Any]) -> Messages:
    """Check that the weights and caches survive `pulumi destroy`."""
    if volume.get("keep") is False:
        yield "is deleted with the stack, and 120 GB would be downloaded again; remove keep, or set it to true"


def pinned_revision(weights: Mapping[str, Any]) -> Messages:
    """Check that the weights are pinned to a commit, because a branch or tag can move."""
    revision = str(weights.get("revision", ""))
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        yield f"revision {revision!r} can move; use a commit of 40 hex digits"


def engine_port(files: Mapping[str, str]) -> Messages:
    """Check that the engine listens on loopback and that the firewall opens only the gateway and SSH."""
    for path, text in files.items():
        if path != UNIT and not path.startswith(f"{UNIT}.d/"):
            continue
        words = text.replace("\\\n", " ").replace("=", " ").split()
        hosts = [after for word, after in pairwise(words) if word == "--host"]
        if path == UNIT and not hosts:
            yield f"{path}: starts vLLM without --host, so it listens on every address; set --host 127.0.0.1"
        for host in hosts:
            if host not in LOOPBACK:
                yield f"{path}: vLLM listens on {host}, where the gateway does not protect it; set --host 127.0.0.1"
    if FIREWALL in files:
        yield from (f"{FIREWALL}: {message}" for message in _opened(files[FIREWALL]))
    elif UNIT in files:
        yield f"{FIREWALL}: is missing, so every port of the machine is open; add the firewall file"


def _opened(firewall: str) -> Messages:
    """Yield the rules that may open more than the gateway and SSH."""
    lines = [
        line.strip() for line in firewall.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    for line in lines:
        if not LINES.fullmatch(line):
            yield f"{line[:80]!r} may open the engine's port; accept only ports 443 and 22, and end with drop"
    *_, last = ["", *(line for line in lines if line != "}")]
    if last not in {"counter drop", "drop"}:
        yield "its last rule is not 'counter drop', so packets that no rule matches are accepted; add it"


def no_secret(user_data: Any) -> Messages:
    """Check that user data holds no secret, in plain text or base64: the machine's metadata service hands it out."""
    for text in _texts(user_data):
        for what, shape in SECRETS.items():
            if shape.search(text):
                yield f"the user data contains {what}; pass it as hf_token, keys or ssh_private_key instead"


def ttl(tags: Mapping[str, str], today: dt.date, most_days: int) -> Messages:
    """Check that a stack with a machine has an end date, so that somebody decides whether it is still needed."""
    remedy = "pulumi stack tag set ttl YYYY-MM-DD"
    written = tags.get("ttl")
    if written is None:
        yield f"has a machine and no tag ttl; run: {remedy}"
        return
    try:
        until = dt.date.fromisoformat(written)
    except ValueError:
        yield f"tag ttl is {written!r}, which is not a date; run: {remedy}"
        return
    if until < today:
        yield f"tag ttl {until} has passed; destroy the stack, or run: {remedy}"
    elif (until - today).days > most_days:
        yield f"tag ttl {until} is more than {most_days} days away; set an earlier date, and extend it later"


def _texts(value: Any) -> Iterator[str]:
    """Yield the text of a value, and every base64 text in it decoded."""
    text = value if isinstance(value, str) else json.dumps(value, default=str).replace("\\n", "\n")
    yield text
    for found in _BASE64.findall(text):
        try:
            yield base64.b64decode(found + "=" * (-len(found) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # neither base64 nor text
