"""Names of rented resources. They are deterministic, so a resource is found again, and recognisable as ours."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_STACK, _RESOURCE, _OWNER, _HASH, _CHECK = 16, 12, 4, 7, 3
_HEX = _OWNER + _HASH + _CHECK
# Spheron accepts [a-z][a-z0-9-]{2,44} for every kind of resource (found in its client's code, 2026-05).
_LONGEST = 45
# The owner's digits are missing in names of earlier versions.
_NAME = re.compile(rf"^([a-z][a-z0-9-]*-(?:[0-9a-f]{{{_OWNER}}})?[0-9a-f]{{{_HASH}}})([0-9a-f]{{{_CHECK}}})$")
_MARKED = re.compile(
    rf"^(?P<stack>[a-z][a-z0-9-]*)-(?P<person>0|[a-z][a-z0-9]{{0,7}})-(?P<expires>0|[0-9]{{10}})"
    rf"(?P<resource>[0-9a-f]{{2}})-[0-9a-f]{{{_HEX}}}$"
)
_TIME = "%y%m%d%H%M"


class Mark(NamedTuple):
    """What the name of an instance tells beside its stack, because the API has no tags."""

    owner: str | None = None
    """Up to 8 lower-case letters and digits, the first one a letter."""
    expires: datetime | None = None
    """When its period ends, in UTC and whole minutes."""


def physical_name(stack: str, project: str, resource: str, *identity: str) -> str:
    """`<stack, cut to 16>-<resource, cut to 12>-<14 hex>`. The last three hex digits are a checksum.

    The first four hex digits stand for stack and project, so that a name tells to which stack a resource belongs.

    Args:
        stack: name of the stack.
        project: name of the project.
        resource: name of the resource in the program.
        identity: what distinguishes this resource from others: URN, inputs that replace it, our public key.
    """
    text = f"{_clean(stack, _STACK)}-{_clean(resource, _RESOURCE)}-{_digits(stack, project, *identity)}"
    return text + _checksum(text)


def marked_name(mark: Mark, stack: str, project: str, resource: str, *identity: str) -> str:
    """`<stack>-<owner>-<YYMMDDhhmm><2 hex of the resource>-<14 hex>`, with 0 for what is not set.

    It has the same 11 hex digits before its checksum as `physical_name` gives. An empty mark gives that name.
    """
    if mark == Mark():
        return physical_name(stack, project, resource, *identity)
    expires = _rounded_up(mark.expires).strftime(_TIME) if mark.expires else "0"
    tail = f"-{mark.owner or 0}-{expires}{_short(resource)}-{_digits(stack, project, *identity)}"
    text = f"{_clean(stack, _stack_length(len(tail) + _CHECK))}{tail}"
    return text + _checksum(f"marked {text}")


def mark_of(name: str | None) -> Mark:
    """Return what a name tells. It is empty for a name without a mark, and for a name that is not ours."""
    found = _marked(name)
    if found is None:
        return Mark()
    expires = None if found["expires"] == "0" else _time(found["expires"])
    return Mark(None if found["person"] == "0" else found["person"], expires)


def is_ours(name: str | None) -> bool:
    """Whether the name ends with our checksum. One foreign name of this shape in 2,048 does so by chance."""
    match = _NAME.match(name or "")
    return match is not None and (_checksum(match[1]) == match[2] or _marked(name) is not None)


def is_same(name: str | None, other: str | None) -> bool:
    """Whether two names are those of one resource, with whatever marks."""
    if name == other:
        return name is not None
    return is_ours(name) and is_ours(other) and str(name)[-_HEX:-_CHECK] == str(other)[-_HEX:-_CHECK]


def is_of_stack(name: str | None, stack: str, project: str) -> bool:
    """Whether a resource of this stack was created under the name. A stack that was renamed since has other names."""
    if not is_ours(name) or str(name)[-_HEX:][:_OWNER] != _owner(stack, project):
        return False
    marked = _marked(name)
    if marked is None:
        return str(name).startswith(f"{_clean(stack, _STACK)}-")
    return marked["stack"] == _clean(stack, _stack_length(len(str(name)) - len(marked["stack"])))


def is_of_resource(name: str | None, resource: str) -> bool:
    """Whether a resource of this name in some program was created under the name."""
    if (marked := _marked(name)) is not None:
        return marked["resource"] == _short(resource)
    text = (name or "").rpartition("-")[0]
    return is_ours(name) and text.endswith(f"-{_clean(resource, _RESOURCE)}")


def _marked(name: str | None) -> re.Match[str] | None:
    match = _MARKED.match(name or "")
    if match is None or _checksum(f"marked {match[0][:-_CHECK]}") != match[0][-_CHECK:]:
        return None
    return match if match["expires"] == "0" or _time(match["expires"]) else None


def _time(digits: str) -> datetime | None:
    try:
        return datetime.strptime(digits, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _rounded_up(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(second=0, microsecond=0)
    return whole if whole == moment else whole + timedelta(minutes=1)


def _stack_length(rest: int) -> int:
    """Length of the stack's part in a marked name, beside `rest` other characters."""
    return min(_STACK, _LONGEST - rest)


def _digits(stack: str, project: str, *identity: str) -> str:
    digest = hashlib.sha256("\0".join((stack, project, *identity)).encode()).hexdigest()[:_HASH]
    return f"{_owner(stack, project)}{digest}"


def _owner(stack: str, project: str) -> str:
    return hashlib.sha256(f"{stack}\0{project}".encode()).hexdigest()[:_OWNER]


def _short(resource: str) -> str:
    return hashlib.sha256(resource.encode()).hexdigest()[:2]


def _clean(text: str, length: int) -> str:
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-")
    return cleaned if cleaned[:1].isalpha() else f"s{cleaned}"[:length]


def _checksum(text: str) -> str:
    return hashlib.sha256(f"pulumi-vllm {text}".encode()).hexdigest()[:_CHECK]
