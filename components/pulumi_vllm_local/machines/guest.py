"""One guest, which is the container of a machine: its folder, its overlay and its shim process."""

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
    "lost": "was running, and its end was not observed; started again",
    "ended": "ended in the meantime",
    "unfinished": "was never completed; removed",
}
_NETWORK = "etc/systemd/network"


class Guest:
    """A guest. All its state is read from its folder each time, so that several processes agree after a crash.

    Files:
        record.json: the machine; written first.
        made: exists once the disk is complete.
        wanted.json: the wanted status; written before each action.
        launch.json: the input of the shim; shim.json, exit.json: its output; stopping: no reboot is wanted.
        upper, work, merged: the overlay; console.log: the console.
    """

    def __init__(self, folder: Path, machine_id: str, names: Names) -> None:
        self.folder = folder
        self._id = machine_id
        self._names = names
        self._name = names.machine(machine_id)
        self.group = Group(names.cgroup, self._name)

    def record(self) -> dict[str, Any] | None:
        """Return the record of the machine."""
        return json_files.read(self.folder / "record.json")

    def made(self) -> bool:
        """Return whether its disk is complete."""
        return (self.folder / "made").exists()

    def reserve(self, record: Mapping[str, Any]) -> None:
        """Write the record, before anything is created."""
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        json_files.write(self.folder / "record.json", dict(record))

    def make_disk(self, files: Mapping[str, str]) -> None:
        """Create the writable layer with its first files."""
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "upper").chmod(0o755)
        seed.write_files(self.folder / "upper", files)
        (self.folder / "made").touch()

    def move(self, number: int, before: Address, address: str, address6: str) -> None:
        """Replace the address in the network configuration; the guest must be off."""
        self._mount()
        for path in (self.folder / "merged" / _NETWORK).glob("*.network"):
            text = path.read_text(encoding="utf-8")
            text = text.replace(f"{before.host}/", f"{address}/").replace(f"{before.ipv6}/", f"{address6}/")
            path.write_text(text, encoding="utf-8")
        self.reserve((self.record() or {}) | {"number": number})

    def boot(self, binds: tuple[str, ...], serials: Mapping[str, str]) -> None:
        """Start the shim, which starts the guest."""
        self._remove_leftovers()
        self._mount()
        disks = self.folder / "merged/var/lib/lc-disks"
        shutil.rmtree(disks, ignore_errors=True)
        seed.write_files(disks, {name: f"{serial}\n" for name, serial in serials.items()})
        _, boots, _ = self.status()
        self._launch({"command": self._command(binds), "boots": boots})
        json_files.write(self.folder / "wanted.json", {"wanted": "running"})
        self._spawn_shim()

    def set_disks(self, binds: tuple[str, ...]) -> None:
        """Give it these disks from its next reboot on."""
        if launch := json_files.read(self.folder / "launch.json"):
            json_files.write(self.folder / "launch.json", launch | {"command": self._command(binds)})

    def end(self, how: str, grace: float) -> None:
        """Power off within `grace` seconds, or kill at once if that is 0; `how` is the resulting status."""
        json_files.write(self.folder / "wanted.json", {"wanted": how})
        (self.folder / "stopping").touch()
        shim = json_files.read(self.folder / "shim.json")
        if grace > 0 and processes.alive(shim, "nspawn"):
            # One signal only, because nspawn kills the container at the second one.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((shim or {})["nspawn"]), signal.SIGTERM)
            self.group.wait_empty(grace)
        self.group.kill()
        end = time.monotonic() + 10
        while processes.alive(json_files.read(self.folder / "shim.json")) and time.monotonic() < end:
            time.sleep(0.02)
        self._remove_leftovers()

    def erase(self) -> None:
        """Remove the files of the machine."""
        self._unmount()
        self.group.remove()
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self._name}", ignore_errors=True)
        # The record is removed last, so that after a crash the machine can be destroyed again.
        for path in self.folder.iterdir():
            if path.name != "record.json":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.folder)

    def running(self) -> bool:
        """Return whether it runs or reboots."""
        return processes.alive(json_files.read(self.folder / "shim.json")) or self.group.populated()

    def leader(self) -> int | None:
        """Return the process id of the guest's init on this computer."""
        return self.group.leader()

    def status(self) -> tuple[str, int, int | None]:
        """Return the status, the number of boots, and the last exit code."""
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
        """Inspect the guest after a crash and adopt it if its shim is gone; return a key of FOUND or None."""
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
        self._remove_leftovers()
        if wanted == "running":
            return "ended" if ended else "lost"
        return "ended" if left else None

    def _command(self, binds: tuple[str, ...]) -> list[str]:
        hostname = str((self.record() or {})["spec"]["name"])
        # Without CAP_MKNOD, root in the guest cannot create a node for a disk of this computer. The container is not a
        # security boundary even so.
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
            # Real machines have pure cgroup v2, so the guest gets it whatever this computer has.
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
            # setsid forks twice, so the shim is not a child of the daemon and does not become a zombie there.
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
                raise processes.CommandError(f"its shim did not start; see {self.folder / 'console.log'}")
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

    def _remove_leftovers(self) -> None:
        """Remove what a killed nspawn leaves behind and the next one fails on."""
        link = self._names.link(self._id)
        if Path(f"/sys/class/net/{link}").exists():
            processes.run("ip", "link", "del", link, check=False)
        for stale in self.folder.glob(".#*.lck"):
            stale.unlink(missing_ok=True)
        # In a group that was killed once, Linux 6.18 kills what systemd 257 starts directly in a new group below it.
        self.group.remove()
