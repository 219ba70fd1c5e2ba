"""A host with real sshd, sudo and systemd, in a container of the local cloud."""

import asyncio
import contextlib

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.host.login import log_in
from pulumi_vllm_local.images.image_cache import ImageCache
from pulumi_vllm_local.machines.containers import Machines, MachineSpec

from tests.host.conftest import CLIENT_KEY


@contextlib.contextmanager
def booted(state):
    """Start one; yields the machines of which it is `one`, and its address. CLIENT_KEY opens it."""
    ImageCache().ensure("base", print)
    machines = Machines(state)
    try:
        public = CLIENT_KEY.export_public_key().decode().strip()
        address = machines.create(MachineSpec("one", "one", (), "ubuntu", public))
        machines.start("one")
        yield machines, address
    finally:
        machines.down(purge=True)


async def log_in_when_up(address, pem):
    async with asyncio.timeout(90):
        while True:
            try:
                return await log_in(address.host, 22, ["ubuntu", "root"], pem)
            except HostError:
                await asyncio.sleep(0.5)
