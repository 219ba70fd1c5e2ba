"""Localcloud room."""
