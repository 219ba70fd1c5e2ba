"""Which boot of a host this is."""

from typing import Final

# A container has the boot id of its host's kernel; the start time of its first process tells its restarts apart.
PRINT_BOOT_IDENTITY: Final = 'echo "$(cat /proc/sys/kernel/random/boot_id)-$(cut -d" " -f22 /proc/1/stat)"'
"""Shell command that prints a value which changes with every boot of the host."""
