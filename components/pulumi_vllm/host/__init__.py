"""A machine over SSH: connect, put files, run, probe; only here is asyncssh known."""
