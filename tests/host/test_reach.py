"""Waiting for young machines: refused keys and silent ports are tried again, a changed key is not."""

from __future__ import annotations

import asyncio

import pytest
from pulumi_vllm.host import reach
from pulumi_vllm.host.reach import wait_ssh, wait_tcp
from pulumi_vllm.host.ssh import AuthRefused, HostKeyChanged, Unreachable, WaitCancelled


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reach, "_PAUSES_S", (0.02,))


@pytest.fixture
def said():
    return []


@pytest.fixture
def wait(sshd, pem, said):
    async def say(text):
        said.append(text)

    def start(users=("root",), cancelled=None, **more):
        return wait_ssh(
            "127.0.0.1",
            sshd.port,
            users,
            pem,
            **{"timeout_s": 5, **more},
            cancelled=cancelled or asyncio.Event(),
            progress=say,
        )

    return start


async def test_a_key_that_is_injected_late_is_waited_for(sshd, wait, said, host_key):
    sshd.refuse = 3
    host = await wait()
    assert host.host_key == host_key
    assert len(said) >= 2
    assert "does not take our key" in said[0]
    await host.close()


async def test_the_user_that_can_become_root_is_found(sshd, wait):
    sshd.answer = b"0\n"
    host = await wait(["ubuntu", "root"])
    assert host.address.user == "root"
    await host.close()


async def test_a_login_that_is_not_root_is_refused(sshd, wait):
    sshd.answer = b'Please login as the user "ubuntu" rather than the user "root".\n'
    with pytest.raises(AuthRefused, match=r"not as root: Please login as the user .* gave up after"):
        await wait(timeout_s=0.1)


async def test_a_machine_that_comes_up_late(sshd, wait):
    await sshd.stop()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    await sshd.start()
    host = await waiting
    await host.close()


async def test_out_of_time_says_what_was_last_seen(sshd, wait):
    await sshd.stop()
    with pytest.raises(Unreachable, match=r"can't be reached.*gave up after"):
        await wait(timeout_s=0.1)


async def test_a_changed_key_ends_the_wait_at_once(wait, other_host_key, said):
    with pytest.raises(HostKeyChanged):
        await wait(host_key=other_host_key)
    assert not said


@pytest.mark.parametrize("silent", [True, False])
async def test_cancel_ends_the_wait_at_once(sshd, wait, monkeypatch, silent):
    if silent:  # in the middle of an attempt

        async def never(*_, **__):
            await asyncio.sleep(60)

        monkeypatch.setattr(reach, "connect", never)
    else:
        sshd.refuse = 10_000
    cancelled = asyncio.Event()
    waiting = asyncio.create_task(wait(cancelled=cancelled, timeout_s=60))
    await asyncio.sleep(0.1)
    cancelled.set()
    with pytest.raises(WaitCancelled):
        async with asyncio.timeout(0.5):
            await waiting


async def test_tcp(sshd):
    cancelled = asyncio.Event()
    await wait_tcp("127.0.0.1", sshd.port, 1, cancelled)
    await sshd.stop()
    with pytest.raises(Unreachable, match="nothing answers"):
        await wait_tcp("127.0.0.1", sshd.port, 0.1, cancelled)
    cancelled.set()
    with pytest.raises(WaitCancelled):
        await wait_tcp("127.0.0.1", sshd.port, 5, cancelled)
