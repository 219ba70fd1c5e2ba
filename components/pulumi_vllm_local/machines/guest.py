"""One guest: its folder, its overlay, its shim. Machines decides what happens to it; this does it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local import json_files
from pulumi_vllm_local.machines import processes, seed
from pulumi_vllm_local.machines.cgroups import Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm_local.machines.machine import Address
    from pulumi_vllm_local.machines.names import Names

SHIM = Path(__file__).with_name("shim.py")
BUNDLE = Path(seed.BUNDLE)
FOUND = {
    "adopted": "still running, adopted",
    "lost": "was running and its end was not seen; started again",
    "ended": "had ended meanwhile",
    "unfinished": "was never finished; removed",
}
# Where cloud-init leaves an address at the first boot, whatever the guest's release configures networks with.
_NETWORKS = ("etc/network", "etc/netplan", "etc/systemd/network", "var/lib/cloud/seed")


class Guest:
    """Everything is read from the folder each time, so that two processes and a crash in between see the same.

    Files: record.json (what it is; written first), made (its disk is complete), wanted.json (on or how it was to end;
    written before the act), launch.json, shim.json, stopping, exit.json (the shim's), upper, work, merged, console.log.
    """

    def __init__(self, folder: Path, machine_id: str, names: Names) -> None:
        self.folder = folder
        self._id = machine_id
        self._names = names
        self._name = names.machine(machine_id)
        self.group = Group(names.cgroup, self._name)

    def record(self) -> dict[str, Any] | None:
        """Return what the machine is."""
        return json_files.read(self.folder / "record.json")

    def made(self) -> bool:
        """Tell whether its disk is complete."""
        return (self.folder / "made").exists()

    def reserve(self, record: Mapping[str, Any]) -> None:
        """Write down what is about to be made."""
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        json_files.write(self.folder / "record.json", dict(record))

    def make_disk(self, files: Mapping[str, str]) -> None:
        """Make the machine's own layer with its first files."""
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "upper").chmod(0o755)
        seed.plant(self.folder / "upper", files)
        (self.folder / "made").touch()

    def move(self, number: int, before: Address, address: str, address6: str) -> None:
        """Write another address over the one it has; the guest must be off."""
        self._mount()
        for folder in _NETWORKS:
            for path in (self.folder / "merged" / folder).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    text = path.read_text(encoding="utf-8")
                    moved = text.replace(f"{before.host}/", f"{address}/").replace(
                        f"{before.ipv6}/", f"{address6}/"
                    )
                    if moved != text:
                        path.write_text(moved, encoding="utf-8")
        self.reserve((self.record() or {}) | {"number": number})

    def boot(self, binds: tuple[str, ...], serials: Mapping[str, str]) -> None:
        """Start the shim, which starts the guest."""
        self._clear_rests()
        self._mount()
        disks = self.folder / "merged/var/lib/lc-disks"
        shutil.rmtree(disks, ignore_errors=True)
        seed.plant(disks, {name: f"{serial}\n" for name, serial in serials.items()})
        _, boots, _ = self.status()
        self._launch({"command": self._command(binds), "boots": boots})
        json_files.write(self.folder / "wanted.json", {"wanted": "running"})
        self._spawn_shim()

    def end(self, how: str, grace: float) -> None:
        """Power off with `grace` seconds, or pull the plug with none; `how` is the status it then has."""
        json_files.write(self.folder / "wanted.json", {"wanted": how})
        (self.folder / "stopping").touch()
        shim = json_files.read(self.folder / "shim.json")
        if grace > 0 and processes.alive(shim, "nspawn"):
            # One signal only: nspawn takes a second one as "at once".
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((shim or {})["nspawn"]), signal.SIGTERM)
            self.group.wait_empty(grace)
        self.group.kill()
        end = time.monotonic() + 10
        while processes.alive(json_files.read(self.folder / "shim.json")) and time.monotonic() < end:
            time.sleep(0.02)
        self._clear_rests()

    def erase(self) -> None:
        """Remove the machine from the disk."""
        self._unmount()
        self.group.remove()
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self._name}", ignore_errors=True)
        # The record goes last: a crash in between leaves a machine that can be destroyed again.
        for path in self.folder.iterdir():
            if path.name != "record.json":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.folder)

    def running(self) -> bool:
        """Tell whether it is on, or on its way through a reboot."""
        return processes.alive(json_files.read(self.folder / "shim.json")) or self.group.populated()

    def leader(self) -> int | None:
        """Return the guest's process 1 as the host numbers it."""
        return self.group.leader()

    def status(self) -> tuple[str, int, int | None]:
        """Return the status, how often it booted, and the last exit code."""
        wanted = (json_files.read(self.folder / "wanted.json") or {}).get("wanted", "created")
        shim = json_files.read(self.folder / "shim.json") or {}
        ended = json_files.read(self.folder / "exit.json") or {}
        boots = int(
            ended.get("boots")
            or shim.get("boots")
            or (json_files.read(self.folder / "launch.json") or {}).get("boots", 0)
        )
        if self.running():
            return ("paused" if self.group.frozen() else "running"), boots, None
        code = ended.get("code")
        if wanted == "running":
            wanted = "stopped" if code == 0 else "failed"
        return ("stopped" if wanted == "destroyed" else wanted), boots, code

    def recover(self) -> str | None:
        """After a crash: say what was found, and take up a guest whose shim is gone."""
        if not self.made():
            return "unfinished"
        wanted = (json_files.read(self.folder / "wanted.json") or {}).get("wanted")
        if wanted == "destroyed":
            return "unfinished"
        shim = json_files.read(self.folder / "shim.json")
        if processes.alive(shim):
            return "adopted" if wanted == "running" else None
        if wanted == "running" and shim and processes.alive(shim, "nspawn"):
            launch = json_files.read(self.folder / "launch.json") or {}
            self._launch({"command": launch["command"], "boots": shim["boots"], "adopt": shim["nspawn"]})
            self._spawn_shim()
            return "adopted"
        left = self.group.populated()
        ended = (self.folder / "exit.json").exists()
        self.group.kill()
        self._clear_rests()
        if wanted == "running":
            return "ended" if ended else "lost"
        return "ended" if left else None

    def _command(self, binds: tuple[str, ...]) -> list[str]:
        hostname = str((self.record() or {})["spec"]["name"])
        # Without the capability a guest's root cannot make a node of the host's disk; still no security boundary.
        command = [
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
            *(f"--machine={self._name}", f"--hostname={hostname}", f"--network-bridge={self._names.bridge}"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--drop-capability=CAP_MKNOD"),
        ]
        if BUNDLE.is_file():
            command.append(f"--bind-ro={BUNDLE}")
        return [*command, *binds, f"--directory={self.folder / 'merged'}"]

    def _launch(self, extra: Mapping[str, Any]) -> None:
        launch = {
            "cgroups": [str(path) for path in self.group.paths],
            "link": self._names.link(self._id),
            "reboot_mark": str(self.folder / "merged/var/lib/lc-reboot"),
            # A guest like the real ones has a pure v2 tree, whatever the host has.
            "environment": {
                "PATH": os.environ.get("PATH", os.defpath),
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            },
        }
        json_files.write(self.folder / "launch.json", launch | dict(extra))

    def _spawn_shim(self) -> None:
        for name in ("exit.json", "stopping", "shim.json"):
            (self.folder / name).unlink(missing_ok=True)
        with (self.folder / "console.log").open("ab") as log:
            # Two forks: the shim is nobody's child, so no zombie of it is left in a daemon that lives long.
            subprocess.run(
                ["setsid", "--fork", sys.executable, "-I", "-S", str(SHIM), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=True,
            )
        end = time.monotonic() + 10
        while not ((self.folder / "shim.json").exists() or (self.folder / "exit.json").exists()):
            if time.monotonic() > end:
                raise processes.CommandError(
                    f"its shim did not start; {self.folder / 'console.log'} may say why"
                )
            time.sleep(0.01)

    def _mount(self) -> None:
        merged = self.folder / "merged"
        if merged.is_mount():
            return
        lower = ":".join(str(path) for path in (self.record() or {})["lower"])
        options = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        processes.run("mount", "-t", "overlay", self._name, "-o", options, merged)

    def _unmount(self) -> None:
        merged = self.folder / "merged"
        if merged.is_mount():
            processes.run("umount", merged, check=False)
        if merged.is_mount():
            processes.run("umount", "-l", merged)

    def _clear_rests(self) -> None:
        """Remove what an nspawn that was killed leaves behind and the next one stumbles over."""
        link = self._names.link(self._id)
        if Path(f"/sys/class/net/{link}").exists():
            processes.run("ip", "link", "del", link, check=False)
        for stale in self.folder.glob(".#*.lck"):
            stale.unlink(missing_ok=True)
