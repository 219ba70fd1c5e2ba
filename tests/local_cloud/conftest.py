"""A local cloud with machines in memory, for tests without containers."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from pulumi_vllm_local.api.rental_api import application
from pulumi_vllm_local.api.store import Options, Store
from pulumi_vllm_local.machines.containers import Address, Machine, MachineError, MachineSpec, Status
from pulumi_vllm_local.machines.disks import Disk
from pulumi_vllm_local.web import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sai_pk_local_test"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFak test"


@dataclass
class Disks:
    """Volumes in memory."""

    disks: dict[str, Disk] = field(default_factory=dict)
    live: bool = True  # whether a volume grows without a restart

    def create(self, volume_id, size_gb, kind, tag=None):
        return self.disks.setdefault(volume_id, Disk(volume_id, size_gb, kind, tag or volume_id))

    def get(self, volume_id):
        return self.disks.get(volume_id)

    def grow(self, volume_id, size_gb):
        self.disks[volume_id] = replace(self.disks[volume_id], size_gb=size_gb)
        return self.live

    def delete(self, volume_id):
        self.disks.pop(volume_id, None)


@dataclass
class Machines:
    """Machines in memory. `log` has all calls; `deaf` machines never answer; calls named in `fail` fail."""

    disks: Disks = field(default_factory=Disks)
    machines: dict[str, Machine] = field(default_factory=dict)
    log: list[tuple[str, ...]] = field(default_factory=list)
    deaf: bool = False
    fail: set[str] = field(default_factory=set)
    mounted: bool = False
    guard: Any = field(default_factory=threading.RLock)

    def _note(self, *call):
        with self.guard:
            self.log.append(call)
        if call[0] in self.fail:
            raise MachineError(f"machine {call[1]}: {call[0]} fails because the test asked for it")

    def _set(self, machine_id, status):
        self.machines[machine_id] = replace(self.machines[machine_id], status=status)

    def create(self, spec: MachineSpec) -> Address:
        self._note("create", spec.id)
        address = Address(f"10.77.0.{len(self.machines) + 2}", "fd00::2", 22, spec.user)
        self.machines.setdefault(spec.id, Machine(spec, address, Status.CREATED, 0, None))
        return self.machines[spec.id].address

    def start(self, machine_id):
        self._note("start", machine_id)
        self._set(machine_id, Status.RUNNING)

    def answers(self, machine_id):
        return not self.deaf

    def stop(self, machine_id, grace=90.0):
        self._note("stop", machine_id, grace)
        self._set(machine_id, Status.STOPPED)

    def kill(self, machine_id):
        self._note("kill", machine_id)
        self._set(machine_id, Status.PREEMPTED)

    def move(self, machine_id):
        self._note("move", machine_id)
        machine = self.machines[machine_id]
        address = replace(machine.address, host=f"10.77.1.{int(machine.address.host.rpartition('.')[2])}")
        self.machines[machine_id] = replace(machine, address=address)
        return address

    def pause(self, machine_id):
        self._note("pause", machine_id)
        self._set(machine_id, Status.PAUSED)

    def unpause(self, machine_id):
        self._note("unpause", machine_id)
        self._set(machine_id, Status.RUNNING)

    def destroy(self, machine_id):
        self._note("destroy", machine_id)
        self.machines.pop(machine_id, None)
        for name, disk in self.disks.disks.items():
            if disk.machine == machine_id:
                self.disks.disks[name] = replace(disk, machine=None)

    def state(self, machine_id):
        return self.machines[machine_id].status if machine_id in self.machines else Status.GONE

    def attach(self, machine_id, volume_id):
        self._note("attach", machine_id, volume_id)
        self.disks.disks[volume_id] = replace(self.disks.disks[volume_id], machine=machine_id)
        return "/dev/vdb"

    def detach(self, machine_id, volume_id, force=False):
        self._note("detach", machine_id, volume_id, force)
        if self.mounted and not force:
            raise MachineError("volume: it is mounted; unmount it first")
        self.disks.disks[volume_id] = replace(self.disks.disks[volume_id], machine=None)

    def list(self):
        return tuple(self.machines.values())

    def reconcile(self):
        return ()


@dataclass
class Api:
    """A client of the simulated API that adds only the key."""

    url: str
    store: Store
    machines: Machines

    def call(self, method, path, *, key=KEY, **more):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return requests.request(
            method, self.url + path, headers=headers | more.pop("headers", {}), timeout=10, **more
        )

    def get(self, path, **more):
        return self.call("GET", path, **more)

    def post(self, path, **more):
        return self.call("POST", path, **more)

    def delete(self, path, **more):
        return self.call("DELETE", path, **more)

    def sim(self, path, /, **body):
        answer = requests.post(f"{self.url}/_sim/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def offer(self, provider="data-crunch", gpu="CPU", kind="DEDICATED", count=None):
        return next(
            item
            for item in self.store.offers
            if (item.provider, item.gpu_type, item.instance_type) == (provider, gpu, kind)
            and count in (None, item.gpu_count)
        )

    def body(self, offer=None, **changes):
        offer = offer or self.offer()
        body = {
            "provider": offer.provider,
            "offerId": offer.offer_id,
            "gpuType": offer.gpu_type,
            "gpuCount": offer.gpu_count,
            "region": offer.region,
            "operatingSystem": offer.operating_systems[0],
            "instanceType": offer.instance_type,
            "ssh_public_key": PUBLIC_KEY,
            "teamId": self.store.team_id,
            "name": "one",
        } | changes
        return {key: value for key, value in body.items() if value is not None}

    def create(self, offer=None, **changes):
        answer = self.post("/api/deployments", json=self.body(offer, **changes))
        assert answer.status_code == 201, answer.text
        return answer.json()

    def until(self, what, timeout=3.0):
        """Poll until a condition is true, because the tasks of the cloud run in parallel."""
        pause = threading.Event()
        for _ in range(int(timeout / 0.02)):
            if found := what():
                return found
            pause.wait(0.02)
        raise AssertionError(f"the condition was still false after {timeout} s")

    def status(self, deployment_id):
        return self.get(f"/api/deployments/{deployment_id}").json()["status"]

    def running(self, offer=None, **changes):
        made = self.create(offer, **changes)
        self.until(lambda: self.status(made["id"]) == "running")
        return made["id"]

    def volume(self, provider="data-crunch", name="weights", size=10):
        region = "US Central 1" if provider == "spheron-es" else "Finland 3"
        body = {"name": name, "sizeInGb": size, "provider": provider, "region": region}
        answer = self.post("/api/volumes", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()


@contextlib.contextmanager
def cloud_at(path: Path | None = None, machines: Machines | None = None, **options: Any) -> Iterator[Api]:
    """Serve a cloud; at factor 6000 the minimum run time of 20 minutes takes 0.2 s."""
    store = Store(path, KEY, Options(**({"factor": 6000.0, "requests_per_window": 100_000} | options)))
    machines = machines or Machines()
    with serving(application(store, machines), dated=False) as url:
        yield Api(url, store, machines)


@pytest.fixture(name="cloud_at")
def _cloud_at():
    return cloud_at


@pytest.fixture
def api() -> Iterator[Api]:
    with cloud_at() as found:
        yield found
