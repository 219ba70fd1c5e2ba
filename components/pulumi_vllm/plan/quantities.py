"""Numbers as people write them: `32Ki` tokens, `300GB` of storage, `8h` of time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.yaml_text import in_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKENS = {"": 1, "k": 1_000, "K": 1_000, "Ki": 1_024, "M": 1_000_000, "Mi": 1_048_576}
_GIGABYTES = {"": 1.0, "GB": 1.0, "TB": 1_000.0, "GiB": 2**30 / 1e9, "TiB": 2**40 / 1e9}
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"


def tokens(value: object) -> int:
    """Tokens from 32768, "32768", "32k" (32,000) or "32Ki" (32,768)."""
    return _whole(value, dict(_TOKENS), "tokens, for example 32768 or 32Ki")


def gigabytes(value: object) -> int:
    """Decimal gigabytes from 300, "300GB", "1.5TB" or "280GiB"."""
    return _whole(value, _GIGABYTES, "a size, for example 300GB or 1TB")


def seconds_between(shortest: str, longest: str) -> Callable[[object], int]:
    """A function that returns the seconds of "90m", "8h" or "2d" within these limits.

    A number without a unit is refused, because it could mean any of them.
    """

    def seconds(value: object) -> int:
        found = _seconds(value)
        if not _seconds(shortest) <= found <= _seconds(longest):
            msg = f"{value!r} is out of range; write {shortest} to {longest}"
            raise ValueError(msg)
        return found

    return seconds


def _seconds(value: object) -> int:
    return _whole(value, dict(_SECONDS), "a time with its unit, for example 90m, 8h or 2d")


def _schema(units: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of what is accepted."""
    number = {"type": "number", "minimum": 1}
    return {"anyOf": [number, {"type": "string", "pattern": f"^{_NUMBER}({'|'.join(units)})\\s*$"}]}


TOKENS_SCHEMA = _schema(_TOKENS)
GIGABYTES_SCHEMA = _schema(_GIGABYTES)
SECONDS_SCHEMA = {"type": "string", "pattern": f"^{_NUMBER}({'|'.join(_SECONDS)})\\s*$"}


def _whole(value: object, units: dict[str, float] | dict[str, int], expected: str) -> int:
    match = None if isinstance(value, bool) else re.match(rf"^{_NUMBER}([A-Za-z]*)\s*$", str(value))
    if match is None or match[2] not in units:
        msg = f"is empty; write {expected}" if value is None else f"{in_yaml(value)} is not {expected}"
        raise ValueError(msg)
    amount = float(match[1]) * units[match[2]]
    if amount < 1:
        msg = f"{value!r} is less than one; write {expected}"
        raise ValueError(msg)
    return round(amount)
