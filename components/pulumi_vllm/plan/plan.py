"""Deployment → Plan: what to run, with which flags, whether it fits, what it costs, and why. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalogue import Catalogue, Engine, Model
    from .config import Deployment
    from .offer import Offer


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before a machine exists."""

    deployment: Deployment
    model: Model
    engine: Engine
    precision: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    budget: tuple[str, ...]
    disk_gib: int
    because: tuple[str, ...]
    usd_per_hour: float | None
    secrets: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The `plan` export: JSON-able, no secrets."""
        raise NotImplementedError


def plan(deployment: Deployment, offers: Sequence[Offer] = (), catalogue: Catalogue | None = None) -> Plan:
    """Decide, or raise PlanError (ConfigError, DoesNotFit, LintError) with every mistake."""
    raise NotImplementedError
