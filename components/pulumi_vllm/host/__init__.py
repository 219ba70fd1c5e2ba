"""Host room."""
