"""Secrets in rendered files: filled in before a file is written, and redacted in what is read back. Pure."""

import hashlib
import itertools
import re
from collections.abc import Mapping

from pulumi_vllm.host.mask import mask

_PLACEHOLDER = re.compile(r"@@(secret|value):([a-z0-9_]+)@@")
REDACTED = "(differs: secret)"
OTHER = "(differs in a masked value, or in the last line's end)"


def unfilled(text: str, secrets: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """Return the placeholders in a text that have no value."""
    known = {"secret": secrets, "value": values}
    return [match[0] for match in _PLACEHOLDER.finditer(text) if match[2] not in known[match[1]]]


def fill(text: str, secrets: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Replace every placeholder with its value."""
    known = {"secret": secrets, "value": values}
    return _PLACEHOLDER.sub(lambda match: known[match[1]][match[2]], text)


def redact(
    live: str, sha256: str, declared: str, secrets: Mapping[str, str], values: Mapping[str, str]
) -> str:
    """Return the text of a file on the host without secrets.

    `live` is its text as the host masked it, and `sha256` the digest of the whole text. When that is what `declared`
    gives with its placeholders filled in, return `declared`. Otherwise show the declared lines as they are declared. In
    a file with secrets, redact all others, because an unknown line may hold a key; one line stands for several.
    """
    if sha256 == hashlib.sha256(fill(declared, secrets, values).encode()).hexdigest():
        return declared
    hidden = _has_secrets(declared)
    filled = {line: fill(line, secrets, values) for line in declared.splitlines()}
    # A masked value of ours can't be told from another one.
    shown = {mask(text): line for line, text in filled.items() if text == mask(text) or not hidden}
    each = (shown.get(line, REDACTED if hidden else line) for line in live.splitlines())
    lines = [
        one for line, group in itertools.groupby(each) for one in ((line,) if line == REDACTED else group)
    ]
    if lines == declared.splitlines():
        lines.append(OTHER)
    return "\n".join(lines) + "\n"


def _has_secrets(text: str) -> bool:
    return any(match[1] == "secret" for match in _PLACEHOLDER.finditer(text))
