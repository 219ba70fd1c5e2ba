"""Part of the probe: whether something synchronises the clock."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH110

import ctypes
import os

# A process of this state has not been told the time for too long (include/uapi/linux/timex.h).
TIME_ERROR = 5
TIMEX_BYTES = 208


def synchronised() -> "bool | None":
    """Return whether the kernel takes the clock as synchronised, or None in a container, whose clock is not its own."""
    if os.path.exists("/run/systemd/container"):
        return None
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return None if state < 0 else state != TIME_ERROR
