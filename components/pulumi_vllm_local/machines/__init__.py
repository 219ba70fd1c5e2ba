"""Machines that are systemd-nspawn containers on this computer, with their disks and their network."""
