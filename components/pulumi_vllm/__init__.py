"""Serve an open-weight LLM on rented GPUs, declared in Pulumi."""

__version__ = "0.1.0"
