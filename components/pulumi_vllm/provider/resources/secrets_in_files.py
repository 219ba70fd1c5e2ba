"""Secrets inside rendered files: put in on the way to the host, taken out on the way back. Pure."""

import re

_PLACE = re.compile(r"@@(secret|value):([a-z0-9_]+)@@")
HIDDEN = "(differs: secret)"


def names(text: str) -> set[str]:
    """Names of the secrets that a text asks for."""
    return {match[2] for match in _PLACE.finditer(text) if match[1] == "secret"}


def missing(text: str, secrets: dict[str, str], values: dict[str, str]) -> list[str]:
    """Placeholders that nothing fills."""
    known = {"secret": secrets, "value": values}
    return [match[0] for match in _PLACE.finditer(text) if match[2] not in known[match[1]]]


def fill(text: str, secrets: dict[str, str], values: dict[str, str]) -> str:
    """The text as it goes to the host."""
    known = {"secret": secrets, "value": values}
    return _PLACE.sub(lambda match: known[match[1]][match[2]], text)


def hide(live: str, wanted: str, secrets: dict[str, str], values: dict[str, str]) -> str:
    """The host's text as it may be shown.

    Equal to `wanted`, placeholders and all, when the host has just what was filled in. Otherwise lines that
    `wanted` has are shown as they stand there, and in a file with secrets every other line is hidden: a line
    nobody wrote may hold somebody's key.
    """
    if live == fill(wanted, secrets, values):
        return wanted
    if not names(wanted):
        return live
    originals = {}
    for line in wanted.splitlines():
        filled = fill(line, secrets, values)
        originals[filled] = line
    return "\n".join(originals.get(line, HIDDEN) for line in live.splitlines()) + "\n"
