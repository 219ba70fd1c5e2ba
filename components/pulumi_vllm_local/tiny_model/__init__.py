"""Mistral Small 4 in miniature, with real weights."""
