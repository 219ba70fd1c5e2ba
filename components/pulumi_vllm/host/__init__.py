"""A host over SSH: connect, write files, run commands, probe. Only this package uses asyncssh."""
