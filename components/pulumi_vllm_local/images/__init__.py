"""Root file systems of the machines, built once and cached."""
