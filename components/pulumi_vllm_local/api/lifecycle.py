"""The lifecycle of the machines behind the API, with one task per machine: boot, SSH, attachments, reclaims, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local.api.machine_spec import machine_spec
from pulumi_vllm_local.machines.containers import Status

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pulumi_vllm_local.api.records import Deployment, Volume
    from pulumi_vllm_local.api.store import Store
    from pulumi_vllm_local.machines.hardware import Hardware

LOG = logging.getLogger("pulumi_vllm_local")

# Real seconds, because the containers do not follow the virtual clock.
_BOOTING_POLL_S = 0.15
_RUNNING_POLL_S = 1.0
_RETRY_S = 2.0
_BILL_S = 0.5
_SAVE_S = 5.0
_RELEASE_S = 90.0


class Lifecycle:
    """Bring the machines in line with the records."""

    def __init__(self, store: Store, hardware: Hardware, engine: str) -> None:
        """`engine` is real, fake or none, for machines without GPUs; machines with GPUs get the fake engine."""
        self.store, self.hardware, self.engine = store, hardware, engine
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._wake_events: dict[str, asyncio.Event] = {}
        self._random = random.Random(store.options.seed)  # noqa: S311 (not used for secrets)
        self._burst_left: dict[str, int] = {}

    async def run(self) -> None:
        """Adopt the existing machines, then bill and reclaim until cancelled."""
        saved = 0.0
        try:
            await self._resume()
            while True:
                await asyncio.sleep(_BILL_S)
                saved += _BILL_S
                alive = [item for item in self.store.deployments.values() if item.alive]
                self.store.bill()
                now = self.store.clock.now()
                for deployment in alive:
                    if deployment.dies_at is not None and now >= deployment.dies_at:
                        self.reclaim(deployment)
                    elif not deployment.alive:
                        self.wake(deployment)
                if alive and saved >= _SAVE_S:
                    saved = 0.0
                    self.store.save()
        finally:
            tasks = [*self._tasks.values(), *self._work]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _resume(self) -> None:
        for line in await asyncio.to_thread(self.hardware.reconcile):
            LOG.info("%s", line)
        for volume in list(self.store.volumes.values()):
            if volume.deleting:
                await self.drop_volume(volume)
            else:
                await self.make_volume(volume)
        for machine in await asyncio.to_thread(self.hardware.list):
            known = self.store.deployments.get(machine.spec.id)
            if known is None or known.machine == "gone":
                LOG.info("machine %s: the records do not have it; removed", machine.spec.id)
                await asyncio.to_thread(self.hardware.destroy, machine.spec.id)
        for deployment in list(self.store.deployments.values()):
            if deployment.alive or deployment.machine != "gone":
                await self._agree_on_volumes(deployment)
                self.follow(deployment)

    async def _agree_on_volumes(self, deployment: Deployment) -> None:
        """Finish an attach or detach that was recorded before the process died."""
        if not deployment.alive or deployment.machine != "up":
            return
        for volume in self.store.volumes.values():
            disk = await asyncio.to_thread(self.hardware.disks.get, volume.handle)
            wanted = volume.attachments.get(deployment.id) == "device"
            attached = disk is not None and disk.machine == deployment.id
            with self._reported(deployment, "volume"):
                if wanted and not attached:
                    await asyncio.to_thread(self.hardware.attach, deployment.id, volume.handle)
                elif attached and not wanted:
                    await asyncio.to_thread(self.hardware.detach, deployment.id, volume.handle, force=True)

    def lock(self, deployment: Deployment) -> asyncio.Lock:
        """Return the lock under which a machine is changed."""
        return self._locks.setdefault(deployment.id, asyncio.Lock())

    def follow(self, deployment: Deployment) -> None:
        """Start the task of a deployment."""
        self._draw_reclaim(deployment)
        self._wake_events[deployment.id] = asyncio.Event()
        self._tasks[deployment.id] = asyncio.create_task(self._drive(deployment))

    def wake(self, deployment: Deployment) -> None:
        """Wake the task of a deployment after its record changed."""
        if deployment.id in self._wake_events:
            self._wake_events[deployment.id].set()

    def reclaim(self, deployment: Deployment, status: str = "terminated-provider") -> None:
        """Let the provider reclaim a machine, with its usual notice."""
        if deployment.reclaim_as is None:
            deployment.reclaim_as = status
            self.store.save()
            self.wake(deployment)

    def start_work(self, work: Coroutine[Any, Any, None], deployment: Deployment, what: str) -> None:
        """Start slow work on a machine that continues after the response."""

        async def report_errors() -> None:
            with self._reported(deployment, what):
                await work

        task = asyncio.create_task(report_errors())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def attach(self, deployment: Deployment, volume: Volume) -> None:
        """Attach a volume to a machine, after the previous machine has released it."""
        profile = self.store.profile(deployment.provider)
        if profile.attach_restarts and not profile.address_stays:
            await self.move(deployment, volume)
            return
        async with self.lock(deployment):
            await self._wait_until_free(volume, deployment.id)
            if deployment.alive:
                await asyncio.to_thread(self.hardware.attach, deployment.id, volume.handle)

    async def move(self, deployment: Deployment, volume: Volume | None = None) -> None:
        """Restart a machine with another address, and attach a volume if one is given."""
        async with self.lock(deployment):
            if not deployment.alive:
                return
            await asyncio.to_thread(self.hardware.stop, deployment.id)
            if volume is not None:
                await self._wait_until_free(volume, deployment.id)
                await asyncio.to_thread(self.hardware.attach, deployment.id, volume.handle)
            address = await asyncio.to_thread(self.hardware.move, deployment.id)
            deployment.address = address.host
            self.store.save()
            await asyncio.to_thread(self.hardware.start, deployment.id)

    async def detach(self, deployment: Deployment, volume: Volume, *, force: bool) -> None:
        """Detach a volume from a machine."""
        async with self.lock(deployment):
            if deployment.alive:
                await asyncio.to_thread(self.hardware.detach, deployment.id, volume.handle, force=force)

    async def _wait_until_free(self, volume: Volume, machine_id: str | None) -> None:
        """Wait while another machine that is being removed still holds a volume."""
        for _ in range(int(_RELEASE_S / _BOOTING_POLL_S)):
            disk = await asyncio.to_thread(self.hardware.disks.get, volume.handle)
            if disk is None or disk.machine in {None, machine_id}:
                return
            await asyncio.sleep(_BOOTING_POLL_S)

    async def make_volume(self, volume: Volume) -> None:
        """Create the disk of a volume."""
        kind = self.store.profile(volume.provider).volume or "block"
        make = self.hardware.disks.create
        await asyncio.to_thread(make, volume.handle, volume.size_gb, kind, volume.mount_tag)

    async def drop_volume(self, volume: Volume) -> None:
        """Delete the disk of a volume, then its record."""
        await self._wait_until_free(volume, None)
        await asyncio.to_thread(self.hardware.disks.delete, volume.handle)
        self.store.volumes.pop(volume.handle, None)
        self.store.save()

    async def _drive(self, deployment: Deployment) -> None:
        wake = self._wake_events[deployment.id]
        while deployment.alive or deployment.machine != "gone":
            wake.clear()
            pause = _RUNNING_POLL_S
            try:
                async with self.lock(deployment):
                    pause = await self._step(deployment)
            except Exception as error:  # noqa: BLE001 (a failing machine must not stop the cloud)
                LOG.error(  # noqa: TRY400 (the message of a machine error is enough)
                    "machine %s (%s): %s", deployment.name, deployment.id, error
                )
                deployment.why, pause = str(error), _RETRY_S
                if deployment.status == "deploying" and deployment.machine == "wanted":
                    self._end(deployment, "failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)

    async def _step(self, deployment: Deployment) -> float:
        """Take the next step for a deployment; return the real seconds to wait afterwards."""
        if not deployment.alive:
            if deployment.machine != "gone":
                await asyncio.to_thread(self.hardware.destroy, deployment.id)
                deployment.machine = "gone"
                self.store.save()
        elif deployment.reclaim_as is not None and deployment.status != "stopped":
            await self._reclaim_now(deployment)
        elif deployment.machine == "wanted":
            await self._boot(deployment)
            return _BOOTING_POLL_S
        elif deployment.status == "deploying":
            await self._check_ssh(deployment)
            return _BOOTING_POLL_S
        elif deployment.status == "running":
            await self._check_machine(deployment)
        return _RUNNING_POLL_S

    async def _boot(self, deployment: Deployment) -> None:
        spec = machine_spec(deployment, self.store.profile(deployment.provider), self.engine)
        address = await asyncio.to_thread(self.hardware.create, spec)
        deployment.address = address.host
        self.store.save()
        for volume in self.store.attached(deployment.id):
            if volume.attachments[deployment.id] == "device":
                await self._wait_until_free(volume, deployment.id)
                await asyncio.to_thread(self.hardware.attach, deployment.id, volume.handle)
        await asyncio.to_thread(self.hardware.start, deployment.id)
        deployment.machine = "up"
        self.store.save()

    async def _check_ssh(self, deployment: Deployment) -> None:
        """Mark a deployment as running once its start time has passed and its sshd answers."""
        profile = self.store.profile(deployment.provider)
        if self.store.clock.now() < deployment.created_at + profile.running_after_s:
            return
        if not profile.ssh_answers:
            await asyncio.to_thread(self.hardware.pause, deployment.id)
        elif not await asyncio.to_thread(self.hardware.answers, deployment.id):
            return
        if deployment.status == "deploying":
            deployment.status, deployment.started_at = "running", self.store.clock.now()
            self.store.save()

    async def _check_machine(self, deployment: Deployment) -> None:
        """Update the status of a deployment whose machine stopped by itself."""
        found = await asyncio.to_thread(self.hardware.state, deployment.id)
        if found is Status.STOPPED:
            self._end(deployment, "stopped")
        elif found in {Status.FAILED, Status.PREEMPTED, Status.GONE}:
            self._end(deployment, "terminated-provider")

    async def _reclaim_now(self, deployment: Deployment) -> None:
        notice = self.store.profile(deployment.provider).reclaim_notice_s
        if deployment.machine == "up" and notice:
            # In real seconds, so that the units of the machine get the whole notice.
            await asyncio.to_thread(self.hardware.stop, deployment.id, grace=notice)
        elif deployment.machine == "up":
            await asyncio.to_thread(self.hardware.kill, deployment.id)
        if deployment.alive:
            self._end(deployment, str(deployment.reclaim_as))

    def _end(self, deployment: Deployment, status: str) -> None:
        deployment.status, deployment.stopped_at = status, self.store.clock.now()
        if not deployment.alive and self.store.profile(deployment.provider).clears_stale_attachments:
            for volume in self.store.attached(deployment.id):
                del volume.attachments[deployment.id]
        self.store.save()
        self.wake(deployment)

    def _draw_reclaim(self, deployment: Deployment) -> None:
        """Draw the time of a spot reclaim: a constant hazard, and bursts in which the next three machines end early."""
        options = self.store.options
        if deployment.instance_type != "SPOT" or deployment.dies_at is not None or not deployment.alive:
            return
        now = self.store.clock.now()
        if self._burst_left.get(deployment.region, 0) > 0:
            self._burst_left[deployment.region] -= 1
            deployment.dies_at = now + self._random.uniform(120, 900)
        elif options.spot_hazard_per_hour > 0:
            deployment.dies_at = now + self._random.expovariate(options.spot_hazard_per_hour) * 3600
            if self._random.random() < options.spot_burst_chance:
                self._burst_left[deployment.region] = 3

    @contextlib.contextmanager
    def _reported(self, deployment: Deployment, what: str) -> Any:
        """Log a failure and keep it in the record, without raising it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the cloud keeps running)
            LOG.error(  # noqa: TRY400 (the message of a machine error is enough)
                "%s of machine %s: %s", what, deployment.name, error
            )
            deployment.why = str(error)
