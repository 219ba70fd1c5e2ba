"""What to run and why: config, catalogue, memory, flags, price. Pure data in, data out."""

from __future__ import annotations

from .config import Deployment
from .errors import ConfigError, DoesNotFit, LintError, PlanError
from .offer import Offer
from .plan import Plan, plan

__all__ = ["ConfigError", "Deployment", "DoesNotFit", "LintError", "Offer", "Plan", "PlanError", "plan"]
