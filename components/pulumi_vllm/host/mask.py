"""Masks secrets in text that a host printed, before a user or a log sees it. Pure."""

from __future__ import annotations

import re

_MASKED = "***"
_PATTERNS = (
    # Whole private keys, also when the end of a journal line cut them off.
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # Keys with a known prefix: Spheron, Hugging Face, OpenAI style.
    re.compile(r"\b(?:sai_pk_|hf_|sk-)[A-Za-z0-9_-]{8,}"),
    # User name and password inside a URL.
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
)
# A variable of an environment, also of one letter, as in `Environment=DB_PASSWORD=x "HF_TOKEN=y"`.
_VARIABLE = re.compile(
    r"""(?P<name>(?P<quote>["'])?\b[A-Z0-9_]*(?:TOKEN|SECRET|PASSW|CREDENTIAL|KEY)[A-Z0-9_]*=)"""
    r"""(?(quote)(?:(?!(?P=quote))[^\n])+|(?:"[^"\n]*"|'[^'\n]*'|[^\s"']+))"""
)
# An option of a command line with a blank before its value, as in --db-password x, or with the value in the next line.
_OPTION = re.compile(
    r"""(?P<name>--(?:\w+-)*(?:password|passwd|passphrase|token|secret|api-?key)(?:\s+(?:\\\n\s*)?|=)["']?)[^\s"']+""",
    re.IGNORECASE,
)
# Not a package with its version, as in tiktoken==0.14.0.
_NAMED = re.compile(
    r"""(?P<name>\b(?:authorization|bearer|api[_-]?key|[a-z_]*token|secret|password|passwd)\b["']?\s*[:=](?!=\d[\w.]*\s)\s*["']?(?:bearer\s+)?"""
    r"""|\bbearer[^\S\n]+)(?P<value>[^\s"',;&]{6,})""",
    re.IGNORECASE,
)


def mask(text: str, *secrets: str) -> str:
    """Replace `secrets`, and everything that looks like a key, token or password, with asterisks."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, _MASKED)
    for pattern in _PATTERNS:
        text = pattern.sub(_MASKED, text)
    text = _VARIABLE.sub(lambda match: match["name"] + _MASKED, text)
    text = _OPTION.sub(lambda match: match["name"] + _MASKED, text)
    return _NAMED.sub(lambda match: match["name"] + _MASKED, text)
