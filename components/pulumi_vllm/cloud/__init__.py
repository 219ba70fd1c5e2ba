"""Cloud room."""
