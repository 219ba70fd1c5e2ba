"""Provider room."""
