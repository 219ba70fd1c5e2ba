"""Taking secrets out of words that a machine said, before a person or a log sees them. Pure."""

from __future__ import annotations

import re

_HIDDEN = "***"
_PATTERNS = (
    # Whole private keys, also cut off at the end of a journal line.
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # Keys that announce themselves: Spheron, Hugging Face, OpenAI style.
    re.compile(r"\b(?:sai_pk_|hf_|sk-)[A-Za-z0-9_-]{8,}"),
    # Passwords inside addresses.
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
)
_NAMED = re.compile(
    r"""(?P<name>\b(?:authorization|bearer|api[_-]?key|[a-z_]*token|secret|password|passwd)\b["']?\s*[:=]\s*["']?(?:bearer\s+)?"""
    r"""|\bbearer\s+)(?P<value>[^\s"',;&]{6,})""",
    re.IGNORECASE,
)


def mask(text: str, *known: str) -> str:
    """The text without `known` values and without anything that looks like a key, token or password."""
    for secret in sorted(known, key=len, reverse=True):
        if secret:
            text = text.replace(secret, _HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(_HIDDEN, text)
    return _NAMED.sub(lambda match: match["name"] + _HIDDEN, text)
