"""The servers of the stand-in."""
