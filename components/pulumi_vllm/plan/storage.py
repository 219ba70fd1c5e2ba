"""How large the volume must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Engine, Precision
    from pulumi_vllm.plan.catalogue_lookup import CatalogueLookup

_GIB = 2**30
_SPARE_GIB = 10
"""For a partial download beside the complete file, logs, and the next engine's caches."""


def needed_gib(precision: Precision, engine: Engine) -> int:
    """GiB that the volume needs for the weights, the caches, and some spare space."""
    caches_and_spare = engine.disk_gib + _SPARE_GIB if engine.runs_on == "cuda" else 0
    return -(-precision.bytes // _GIB) + caches_and_spare


def shortage(storage_gb: int, precision: Precision, engine: Engine) -> tuple[str, ...]:
    """An error if the volume cannot hold weights and caches."""
    need = needed_gib(precision, engine)
    if storage_gb * 1e9 >= need * _GIB:
        return ()
    short = f"{storage_gb} GB are less than the {need} GiB that weights and caches need"
    return (f"server.storage: {short}; use {-(-need * _GIB // 10**9)}GB",)


def too_small(lookup: CatalogueLookup) -> tuple[str, ...]:
    """The same for an invalid block, as far as it could be read."""
    if lookup.storage_gb is None or lookup.precision is None or lookup.engine is None:
        return ()
    return shortage(lookup.storage_gb, lookup.precision, lookup.engine)
