"""The gateway's map of API keys. HAProxy sees digests only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def keys_map(digests: Mapping[str, str]) -> str:
    """Return a HAProxy map from the SHA-256 of each key to the key's name. `digests` are by name."""
    return "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
