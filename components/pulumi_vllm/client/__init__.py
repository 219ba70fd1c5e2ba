"""A running stack as its clients see it: where it is, HTTP to its gateway, load, checks. No host, no cloud."""
