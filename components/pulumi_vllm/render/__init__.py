"""Render room."""
