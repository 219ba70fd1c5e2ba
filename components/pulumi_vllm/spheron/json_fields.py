"""Fields of JSON answers: wrappers are removed, unknown fields are ignored, types are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pulumi_vllm.spheron.errors import CloudError

Record = Mapping[str, Any]


def unwrap(payload: Any, *wrappers: str, action: str) -> Record:
    """Return the object of an answer, bare or inside `data` or one of `wrappers`."""
    for name in (*wrappers, "data"):
        if isinstance(payload, dict) and isinstance(payload.get(name), dict):
            return dict(payload[name])
    if isinstance(payload, dict):
        return payload
    raise CloudError(
        f"{action}: the cloud answered with {_shape(payload)} instead of an object", effect_unknown=True
    )


def unwrap_list(payload: Any, *wrappers: str, action: str) -> list[Record]:
    """Return the objects of a list, bare or inside `data` or one of `wrappers`."""
    items = payload
    if isinstance(payload, dict):
        lists = [payload[name] for name in (*wrappers, "data") if isinstance(payload.get(name), list)]
        items = lists[0] if lists else None
    if not isinstance(items, list):
        raise CloudError(f"{action}: the cloud answered with {_shape(payload)} instead of a list")
    return [item for item in items if isinstance(item, dict)]


def text(item: Record, *names: str) -> str | None:
    """Return the first of these fields that holds a non-empty string. A whole number counts as a string."""
    for value in _values(item, names):
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def number(item: Record, *names: str) -> float | None:
    """Return the first of these fields that holds a finite number, also one written as a string."""
    for value in _values(item, names):
        if isinstance(value, bool):
            continue
        try:
            found = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(found):
            return found
    return None


def integer(item: Record, *names: str) -> int | None:
    """Return the first of these fields that holds a number, without its fraction."""
    found = number(item, *names)
    return None if found is None else int(found)


def texts(item: Record, *names: str) -> tuple[str, ...]:
    """Return the strings in the first of these fields that holds a list."""
    for value in _values(item, names):
        if isinstance(value, list):
            return tuple(entry for entry in value if isinstance(entry, str) and entry)
    return ()


def nested(item: Record, name: str) -> Record:
    """Return the object in a field; an empty one where there is none."""
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def _values(item: Record, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        if item.get(name) is not None:
            yield item[name]


def _shape(payload: Any) -> str:
    if payload is None:
        return "nothing"
    if isinstance(payload, dict):
        return f"an object with {', '.join(sorted(map(str, payload))[:6]) or 'no keys'}"
    if isinstance(payload, list):
        return "a list"
    return "a string" if isinstance(payload, str) else "a single value"
