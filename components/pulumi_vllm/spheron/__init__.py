"""The rental API: a client that never rents twice and never shows its key; only here is requests known."""
