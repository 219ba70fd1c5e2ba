"""Client of the rental API. It never rents twice and never shows its key. Only this package uses requests."""
