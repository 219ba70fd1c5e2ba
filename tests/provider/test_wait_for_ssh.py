"""Waiting for SSH on a new machine: refused keys and closed ports are tried again, a changed host key is not."""

import asyncio
import time

import pytest
from pulumi_vllm.host import login
from pulumi_vllm.host.errors import HostError, HostKeyChanged
from pulumi_vllm.provider.lifecycle import provision
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Cancelled
from pulumi_vllm.provider.plugin.session import Session

from tests.host.conftest import host_key, pem, sshd  # noqa: F401 (fixtures)

URN = "urn:pulumi:s::p::vllm:spheron:Instance::machine"


@pytest.fixture
def lines():
    return []


@pytest.fixture
def call(lines, monkeypatch):
    monkeypatch.setattr(provision, "_LOGIN_PAUSES_S", (0.02,))
    session = Session("")

    async def log(_urn, text, _severity, *, ephemeral=False):
        lines.append(text)

    session.log = log
    return Call(URN, session)


@pytest.fixture
def wait(call, sshd, pem):  # noqa: F811 (fixtures)
    async def start(within_s=5.0):
        sshd.answer = b"0\n"
        outputs = {"address": "127.0.0.1", "port": sshd.port, "instanceName": "machine"}
        new = {"sshPrivateKey": pem}
        await provision._wait_ssh(call, "id", new, outputs, time.monotonic() + within_s)
        return outputs

    return start


async def test_a_key_that_the_machine_accepts_late_is_waited_for(sshd, wait, lines, host_key):  # noqa: F811
    sshd.refuse = 3
    outputs = await wait()
    assert (outputs["user"], outputs["hostKey"]) == ("root", host_key)
    told = ": does not accept our key; a new instance may accept our key some minutes after its start ("
    assert told in lines[0]


async def test_a_machine_that_starts_late_is_waited_for(sshd, wait):  # noqa: F811
    await sshd.stop()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    await sshd.start()
    assert (await waiting)["user"] == "root"


async def test_the_last_error_is_reported_after_the_time_limit(sshd, wait):  # noqa: F811
    await sshd.stop()
    with pytest.raises(HostError, match=r"can't be reached.*gave up after"):
        await wait(within_s=0.1)


async def test_a_changed_host_key_ends_the_wait(wait, monkeypatch):
    async def refuse(*_):
        raise HostKeyChanged("another key")

    monkeypatch.setattr(login, "log_in", refuse)
    with pytest.raises(HostKeyChanged):
        await wait()


@pytest.mark.parametrize("during", ["an attempt", "a pause"])
async def test_cancelling_ends_the_wait_at_once(call, sshd, wait, monkeypatch, during):  # noqa: F811
    if during == "an attempt":

        async def never(*_):
            await asyncio.sleep(60)

        monkeypatch.setattr(login, "log_in", never)
    else:
        sshd.refuse = 10_000
    waiting = asyncio.create_task(wait(within_s=60.0))
    await asyncio.sleep(0.1)
    call.session.cancelled.set()
    with pytest.raises(Cancelled):
        async with asyncio.timeout(0.5):
            await waiting
