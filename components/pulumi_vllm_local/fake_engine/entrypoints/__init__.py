"""The servers of the fake engine."""
