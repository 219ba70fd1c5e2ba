"""Secrets in rendered files: filled in before a file is written, and redacted in what is read back. Pure."""

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"@@(secret|value):([a-z0-9_]+)@@")
REDACTED = "(differs: secret)"


def unfilled(text: str, secrets: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """Return the placeholders in a text that have no value."""
    known = {"secret": secrets, "value": values}
    return [match[0] for match in _PLACEHOLDER.finditer(text) if match[2] not in known[match[1]]]


def fill(text: str, secrets: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Replace every placeholder with its value."""
    known = {"secret": secrets, "value": values}
    return _PLACEHOLDER.sub(lambda match: known[match[1]][match[2]], text)


def redact(live: str, declared: str, secrets: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Return the text of a file on the host without secrets.

    When it is what `declared` gives with its placeholders filled in, return `declared`. Otherwise, in a file with
    secrets, show the declared lines as they are declared, and redact all others: an unknown line may hold a key.
    """
    if live == fill(declared, secrets, values):
        return declared
    if not _has_secrets(declared):
        return live
    shown = {fill(line, secrets, values): line for line in declared.splitlines()}
    return "\n".join(shown.get(line, REDACTED) for line in live.splitlines()) + "\n"


def _has_secrets(text: str) -> bool:
    return any(match[1] == "secret" for match in _PLACEHOLDER.finditer(text))
