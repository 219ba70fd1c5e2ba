"""A host with real sshd, sudo and systemd, in a container of the local cloud."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from pulumi_vllm.host import drift
from pulumi_vllm.host.connection_pool import ConnectionPool
from pulumi_vllm.host.errors import HostError
from pulumi_vllm.host.ssh import PutFile, connect
from pulumi_vllm_local.machines import host_checks

from tests.host.booted_host import booted, log_in_when_up

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(bool(host_checks.preflight()), reason="; ".join(host_checks.preflight())),
]
UNIT = "[Service]\nExecStart=/bin/sleep ${HOW_LONG}\nEnvironment=HOW_LONG=600\n"


@pytest.fixture
def container(tmp_path):
    with booted(tmp_path / "state") as (machines, address):
        yield machines, address


async def boot_id(pool, address, pem, pinned):
    await pool.forget(address.host)
    try:
        return (await pool.facts(await pool.get(address, pem, pinned))).boot_id
    except HostError:
        return None


async def test_a_host_from_first_login_to_reboot(container, pem):
    machines, address = container
    host = await log_in_when_up(address, pem)
    pinned = host.host_key
    assert host.address.user == "ubuntu"
    await host.close()
    pool = ConnectionPool()
    host = await pool.get(host.address, pem, pinned)
    assert (await host.run("id -u")).stdout == "0\n"

    files = [
        PutFile("/etc/systemd/system/vllm.service", UNIT.encode()),
        PutFile("/etc/pulumi-vllm/secrets/token", b"hunter2-hunter2", "0600", "ubuntu:root"),
    ]
    assert len(await host.put(files)) == 2
    assert await host.put(files) == ()
    await host.run("systemctl daemon-reload; systemctl start vllm.service")

    started = time.monotonic()
    facts = await pool.facts(host, paths=("/etc/pulumi-vllm/none",))
    logging.getLogger(__name__).info("a probe took %.2f s", time.monotonic() - started)
    assert facts.units["vllm.service"].active == "active"
    assert facts.units["models.mount"].active == "missing"
    assert drift.process_matches(facts.units["vllm.service"])
    assert facts.files["/etc/pulumi-vllm/secrets/token"].owner == "ubuntu:root"
    assert facts.files["/etc/systemd/system/vllm.service"].text == UNIT
    assert 22 in {port for _, port in facts.listening}

    dropin = "/etc/systemd/system/vllm.service.d/more.conf"
    more = "[Service]\nExecStart=\nExecStart=/bin/sleep 700\n"
    await host.run(
        f"mkdir -p {dropin.rpartition('/')[0]}; cat > {dropin}; systemctl daemon-reload",
        stdin=more.encode(),
    )
    pool.mark_changed(host)
    facts = await pool.facts(host)
    assert {path: fact.text for path, fact in facts.drop_ins.items()} == {dropin: more}
    assert not drift.process_matches(facts.units["vllm.service"])

    with pytest.raises(HostError, match="No such file"):
        await host.run("cat /nowhere")
    machines.reboot("one")
    await pool.forget(address.host)
    # The old sshd may still answer for a moment, so wait for another boot id.
    async with asyncio.timeout(60):
        while await boot_id(pool, host.address, pem, pinned) in {None, facts.boot_id}:  # noqa: ASYNC110 (a reboot sends no event)
            await asyncio.sleep(0.5)
    await pool.close()


async def test_a_paused_host_is_unreachable_and_a_resumed_one_answers(container, pem):
    machines, address = container
    host = await log_in_when_up(address, pem)
    machines.pause("one")
    with pytest.raises(HostError):
        await connect(host.address, pem, host.host_key, timeout_s=2)
    machines.unpause("one")
    assert (await host.run("echo on")).stdout == "on\n"
    await host.close()
