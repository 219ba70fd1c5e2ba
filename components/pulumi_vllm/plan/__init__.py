"""Turns a stack file into a Plan, with pure functions: configuration, catalogue, memory, arguments, lint, price."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.errors import ConfigError, DoesNotFit, LintError, PlanError
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.plan.planner import Plan, plan

# Loaded on first use: the plugin needs only names and offers, and pydantic would take 0.2 s of every preview.
_MODULES = {
    "ConfigError": "errors",
    "Deployment": "config",
    "DoesNotFit": "errors",
    "LintError": "errors",
    "Offer": "offer",
    "Plan": "planner",
    "PlanError": "errors",
    "plan": "planner",
}

__all__ = ["ConfigError", "Deployment", "DoesNotFit", "LintError", "Offer", "Plan", "PlanError", "plan"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
