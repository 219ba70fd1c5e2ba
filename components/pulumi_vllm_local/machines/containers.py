"""Machines as systemd-nspawn containers, which outlive the process that created them.

All methods are thread-safe and idempotent, and raise `MachineError`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pulumi_vllm_local import json_files
from pulumi_vllm_local.images.image_cache import ImageCache, ImageError
from pulumi_vllm_local.machines import cgroups, names, processes, seed
from pulumi_vllm_local.machines.disks import DiskError, Disks
from pulumi_vllm_local.machines.guest import FOUND, Guest
from pulumi_vllm_local.machines.machine import Address, Machine, MachineError, MachineSpec, Status
from pulumi_vllm_local.machines.network import Network, NetworkError, sends_banner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Address", "Machine", "MachineError", "MachineSpec", "Machines", "Status"]

SSH_PORT = 22
REBOOT_SIGNAL = signal.SIGRTMIN + 5  # systemd as process 1: reboot.target


class Machines:
    """All machines of one state folder."""

    def __init__(self, state_dir: Path, images: ImageCache | None = None) -> None:
        """`images` is the cache that machines with an engine are built from; without it there are only bare ones."""
        self._state = state_dir.resolve()
        self._images = images or ImageCache()
        self._names = names.Names.of(self._state)
        self._network = Network(self._state)
        self.disks = Disks(self._state)
        self._lock = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}

    @property
    def gateway(self) -> str:
        """Return the address of the bridge, after setting it up."""
        with _machine_errors():
            self._network.up()
            return self._network.gateway

    def create(self, spec: MachineSpec) -> Address:
        """Create the disk and the address of a machine, without booting it."""
        with self._locked(spec.id), _machine_errors(f"machine {spec.id}: "):
            guest = self._guest(spec.id)
            if not guest.made():
                lower = [str(self._images.ensure(name)) for name in spec.images()]
                network = self._network
                network.up()
                with self._lock:
                    number = self._free_number(spec.id)
                    guest.reserve({"spec": spec.plain(), "number": number, "lower": lower})
                data = seed.user_data(spec.user, spec.ssh_public_key, spec.user_data)
                address, address6 = network.address(number), network.address6(number)
                guest.make_disk(
                    seed.nocloud(spec.id, spec.name, data)
                    | seed.network(address, address6, network.gateway, seed.host_nameservers())
                    | seed.host_files(os.environ, network.gateway)
                )
            return self._address(guest)

    def start(self, machine_id: str) -> None:
        """Boot a machine unless it runs."""
        with self._locked(machine_id), _machine_errors(f"machine {machine_id}: "):
            guest = self._known(machine_id)
            if not guest.running():
                self._network.up()
                guest.boot(self.disks.binds(machine_id), self.disks.serials(machine_id))

    def stop(self, machine_id: str, grace: float = 90.0) -> None:
        """Power off a machine; kill it after `grace` seconds."""
        with self._locked(machine_id):
            self.unpause(machine_id)
            self._known(machine_id).end("stopped", grace)

    def kill(self, machine_id: str) -> None:
        """Kill a machine without notice, even while it powers off."""
        self._known(machine_id).group.kill(0)
        with self._locked(machine_id):
            self._known(machine_id).end("preempted", 0)

    def reboot(self, machine_id: str) -> None:
        """Reboot a machine through its systemd."""
        leader = self._known(machine_id).leader()
        if leader is None:
            raise MachineError(
                f"machine {machine_id}: it cannot be rebooted because it is not running; start it"
            )
        os.kill(leader, REBOOT_SIGNAL)

    def move(self, machine_id: str) -> Address:
        """Give a stopped machine another address, as some providers do on a restart."""
        with self._locked(machine_id), _machine_errors(f"machine {machine_id}: "):
            guest = self._known(machine_id)
            if guest.running():
                raise MachineError(
                    f"machine {machine_id}: its address cannot change while it runs; power it off first"
                )
            with self._lock:
                before, number = self._address(guest), self._free_number(machine_id)
                guest.move(number, before, self._network.address(number), self._network.address6(number))
            return self._address(guest)

    def pause(self, machine_id: str) -> None:
        """Freeze a machine and take its link down, so that not even the kernel answers."""
        with self._locked(machine_id):
            self._network.link(self._names.link(machine_id), up=False)
            self._known(machine_id).group.freeze(True)

    def unpause(self, machine_id: str) -> None:
        """Resume a frozen machine."""
        with self._locked(machine_id):
            guest = self._known(machine_id)
            if guest.group.frozen():
                guest.group.freeze(False)
                self._network.link(self._names.link(machine_id), up=True)

    def destroy(self, machine_id: str) -> None:
        """Remove a machine and its disk; its volumes stay."""
        with self._locked(machine_id), _machine_errors(f"machine {machine_id}: "):
            guest = self._guest(machine_id)
            if guest.record() is None:
                return
            guest.end("destroyed", 0)
            guest.erase()
            self._network.remove_link(self._names.link(machine_id))
            for disk in self.disks.of(machine_id):
                self.disks.disclaim(disk.id)

    def get(self, machine_id: str) -> Machine | None:
        """Return a machine with its status, or None."""
        guest = self._guest(machine_id)
        record = guest.record()
        if record is None:
            return None
        status, boots, code = guest.status()
        return Machine(
            MachineSpec.restored(record["spec"]), self._address(guest), Status(status), boots, code
        )

    def state(self, machine_id: str) -> Status:
        """Return the status of a machine."""
        guest = self._guest(machine_id)
        return Status(guest.status()[0]) if guest.record() else Status.GONE

    def list(self) -> tuple[Machine, ...]:
        """Return all machines."""
        return tuple(machine for machine in map(self.get, self._ids()) if machine)

    def answers(self, machine_id: str) -> bool:
        """Return whether the sshd of a machine sends its banner."""
        record = self._guest(machine_id).record()
        return record is not None and sends_banner(self._network.address(record["number"]), SSH_PORT)

    def attach(self, machine_id: str, volume_id: str) -> str:
        """Attach a volume to a machine; return its device, or its tag if it is a share."""
        with self._locked(machine_id), _machine_errors(f"machine {machine_id}: "):
            guest = self._known(machine_id)
            known = {disk.id for disk in self.disks.of(machine_id)}
            disk = self.disks.claim(volume_id, machine_id)
            if disk.kind == "block":
                leader = guest.leader()
                if leader is not None:
                    self.disks.attach_hot(disk, leader)
                guest.set_disks(self.disks.binds(machine_id))
            elif volume_id not in known and guest.running():
                self._restart(machine_id)
            return disk.device or disk.tag

    def detach(self, machine_id: str, volume_id: str, force: bool = False) -> None:
        """Detach a volume from a machine; a mounted one needs `force`."""
        with self._locked(machine_id), _machine_errors(f"machine {machine_id}: "):
            guest = self._known(machine_id)
            disk = self.disks.get(volume_id)
            if disk is None or disk.machine != machine_id:
                return
            leader = guest.leader()
            if leader is not None:
                self.disks.detach_hot(disk, leader, force=force)
            if disk.kind == "share" and guest.running():
                guest.end("stopped", 90)
                self.disks.disclaim(volume_id)
                self.start(machine_id)
            else:
                self.disks.disclaim(volume_id)
                guest.set_disks(self.disks.binds(machine_id))

    def console(self, machine_id: str, words: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the command line that runs a command, or a shell, on a machine as root."""
        leader = self._known(machine_id).leader()
        if leader is None:
            raise MachineError(f"machine {machine_id}: it does not run, so it has no console; start it")
        command = words or ("/bin/bash", "--login")
        return "nsenter", f"--target={leader}", "--all", "--", *command

    def console_log(self, machine_id: str) -> Path:
        """Return the path of the console log."""
        return self._guest(machine_id).folder / "console.log"

    def reconcile(self) -> tuple[str, ...]:
        """Adopt, restart or remove machines after a crash; return a message for each."""
        done: list[str] = []
        ids = self._ids()
        if ids:
            self._network.up()
        for machine_id in ids:
            with self._locked(machine_id):
                guest = self._guest(machine_id)
                what = guest.recover()
                if what == "unfinished":
                    self.destroy(machine_id)
                elif what == "lost":
                    self.start(machine_id)
                if what:
                    done.append(f"machine {machine_id}: {FOUND[what]}")
        ours = {self._names.machine(machine_id) for machine_id in ids}
        for name in cgroups.group_names(self._names.cgroup):
            if name not in ours:
                group = cgroups.Group(self._names.cgroup, name)
                group.kill()
                group.remove()
                self._network.remove_link(f"vb-{name}")
                done.append(f"container {name}: it has no record; killed")
        for disk in self.disks.all():
            if disk.machine and disk.machine not in ids:
                self.disks.disclaim(disk.id)
                done.append(f"volume {disk.id}: detached from machine {disk.machine}, which no longer exists")
        return tuple(done)

    def down(self, purge: bool = False) -> None:
        """Remove all machines and their resources on this computer; volumes stay unless purged."""
        ids = self._ids()
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._power_off, ids))
        for machine_id in ids:
            self.destroy(machine_id)
        with _machine_errors():
            for name in cgroups.group_names(self._names.cgroup):
                cgroups.Group(self._names.cgroup, name).kill()
            for disk in self.disks.all():
                self.disks.disclaim(disk.id)
                if purge:
                    self.disks.delete(disk.id)
            self._network.down()
            cgroups.remove_parent(self._names.cgroup)
        shutil.rmtree(self._state / "machines", ignore_errors=True)

    def _power_off(self, machine_id: str) -> None:
        with contextlib.suppress(MachineError):
            self.stop(machine_id, grace=10)

    def _restart(self, machine_id: str) -> None:
        self._known(machine_id).end("stopped", 90)
        self.start(machine_id)

    def _guest(self, machine_id: str) -> Guest:
        return Guest(self._state / "machines" / machine_id, machine_id, self._names)

    def _known(self, machine_id: str) -> Guest:
        guest = self._guest(machine_id)
        if guest.record() is None:
            raise MachineError(f"machine {machine_id}: there is no machine with this id; create it first")
        return guest

    def _address(self, guest: Guest) -> Address:
        record = guest.record() or {}
        number, user = int(record["number"]), str(record["spec"]["user"])
        return Address(self._network.address(number), self._network.address6(number), SSH_PORT, user)

    def _ids(self) -> tuple[str, ...]:
        top = self._state / "machines"
        return tuple(sorted(path.name for path in top.iterdir() if path.is_dir())) if top.is_dir() else ()

    def _free_number(self, machine_id: str) -> int:
        found = (self._guest(other).record() for other in self._ids() if other != machine_id)
        taken = {int(record["number"]) for record in found if record}
        last = json_files.read(self._state / "last.json") or {"number": names.LAST_GUEST}
        number = names.free_number(taken, int(last["number"]))
        if number is None:
            raise MachineError(f"machine {machine_id}: all addresses are in use; destroy some machines")
        json_files.write(self._state / "last.json", {"number": number})
        return number

    @contextlib.contextmanager
    def _locked(self, machine_id: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(machine_id, threading.RLock())
        with lock:
            yield


@contextlib.contextmanager
def _machine_errors(where: str = "") -> Iterator[None]:
    """Convert errors of lower layers to MachineError."""
    try:
        yield
    except (processes.CommandError, DiskError, NetworkError, ImageError) as error:
        raise MachineError(f"{where}{error}") from error
