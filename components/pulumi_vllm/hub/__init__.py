"""Reads what a model hub publishes about a model, without downloading its weights."""
