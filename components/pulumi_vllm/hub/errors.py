"""Errors of the model hub, as sentences with a remedy."""

from __future__ import annotations


class HubError(Exception):
    """The hub cannot be reached, or refuses; or what it publishes is not what a model has."""
