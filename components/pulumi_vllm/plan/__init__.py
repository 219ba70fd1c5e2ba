"""Plan room."""
