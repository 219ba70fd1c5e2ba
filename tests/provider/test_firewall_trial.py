"""Firewall rules on a host with real systemd, sshd and nftables: nobody is locked out, whatever dies."""

import time
from dataclasses import dataclass

import pytest
from pulumi_vllm.host.errors import HostError
from pulumi_vllm.host.ssh import Host, PutFile, connect
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.provider.lifecycle import firewall_trial
from pulumi_vllm.provider.lifecycle.access import refuse_lock_out
from pulumi_vllm.provider.lifecycle.firewall_trial import load_rules, put_rules
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.session import Session
from pulumi_vllm.render import layout, render
from pulumi_vllm_local.machines import host_checks
from pulumi_vllm_local.machines.containers import Machines

from tests.host.booted_host import booted, log_in_when_up
from tests.host.conftest import CLIENT_KEY
from tests.plan.blocks import block_of

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(bool(host_checks.preflight()), reason="; ".join(host_checks.preflight())),
]
URN = "urn:pulumi:s::p::vllm:host:Files::server-files"
ELSEWHERE = "9.9.9.0/24"
UNIT_FILE = layout.unit_file(layout.FIREWALL_UNIT)


@pytest.fixture
def container(tmp_path):
    with booted(tmp_path / "state") as (machines, address):
        yield machines, address


@pytest.fixture
def pem():
    return CLIENT_KEY.export_private_key().decode()


def files_of(**access) -> dict[str, PutFile]:
    """Return the files of a shipped stack that admits these ranges."""
    planned = plan(Deployment.parse(block_of("spheron-h100-1x-nvfp4") | {"access": access}))
    return {f.path: PutFile(f.path, f.text.encode(), f.mode, f.owner) for f in render(planned)}


@pytest.fixture
def session():
    made, made.lines = Session(""), []

    async def log(_urn, text, _severity, *, ephemeral=False):
        made.lines.append(text)

    made.log = log
    return made


@dataclass
class Managed:
    """A host as the plugin manages it, and what is known about it."""

    machines: Machines
    host: Host
    pem: str
    session: Session
    client: str

    @property
    def call(self) -> Call:
        return Call(URN, self.session)

    def values(self, **access) -> dict:
        connection = {"host": self.host.address.host, "user": "ubuntu", "hostKey": self.host.host_key}
        return {"connection": connection | {"privateKey": self.pem}} | ({"access": access} if access else {})

    async def reached(self, within_s: float = 15.0) -> bool:
        """Whether a new connection is admitted."""
        try:
            await (await connect(self.host.address, self.pem, self.host.host_key, within_s)).close()
        except HostError:
            return False
        return True

    async def rules(self) -> tuple[str, str, str]:
        """Return the rules in the kernel, those on the disk, and the timers of a trial."""
        kernel = f"/usr/sbin/nft -s list table {layout.FIREWALL_TABLE} 2>/dev/null || true"
        disk = f"cat {layout.FIREWALL_RULES} 2>/dev/null || true"
        timers = "systemctl list-timers --all --no-legend '*firewall*'"
        shown = [(await self.host.run(one)).stdout for one in (kernel, disk, timers)]
        return shown[0], shown[1], shown[2]


async def the_first_start_loads_proves_and_keeps(on: Managed, ours: str) -> None:
    files = files_of(allow=[ours])
    await on.host.run("useradd --system vllm")  # as the bootstrap does; the rules name this user
    await on.host.put([f for path, f in files.items() if path.startswith(layout.PROGRAMS)])
    await on.host.put([files[UNIT_FILE]])
    await on.host.run("systemctl daemon-reload")
    declared = on.values(allow=[ours])
    assert await put_rules(on.call, declared, files[layout.FIREWALL_RULES], reload=False)
    assert (await on.rules())[0] == "", "loaded before the start"
    await load_rules(on.call, declared)
    kernel, disk, timers = await on.rules()
    assert on.client in kernel
    assert on.client in disk
    assert timers == ""
    assert (await on.host.run(f"systemctl is-active {layout.FIREWALL_UNIT}")).stdout == "active\n"
    assert (await on.host.run(f"systemctl is-enabled {layout.FIREWALL_UNIT}")).stdout == "enabled\n"
    assert await on.reached()


async def a_lock_out_is_refused_before_the_rules_are_loaded(on: Managed) -> None:
    with pytest.raises(UserError, match="would lock this computer out") as refused:
        await refuse_lock_out(on.call.name, on.values(allow=[ELSEWHERE]), on.host)
    assert str(refused.value).endswith(
        f"server.access.allow admits {ELSEWHERE} to SSH, but the host sees this computer as {on.client}; admit it "
        f"with: pulumi config set --path 'pulumi-vllm:server.access.allow[1]' {on.client}/32"
    )


async def rules_that_admit_no_new_connection_are_rolled_back(on: Managed, narrow: PutFile) -> None:
    kept = await on.rules()
    with pytest.raises(UserError, match=r"admitted no new SSH .*the host has its previous rules again"):
        await put_rules(on.call, on.values(), narrow, reload=False)
    assert await on.rules() == kept
    assert await on.reached()


async def the_host_rolls_back_when_the_plugin_dies(on: Managed, narrow: PutFile) -> None:
    kept = await on.rules()
    began = time.monotonic()
    await on.host.run(f"{layout.FIREWALL} try 5", stdin=narrow.data)
    assert not await on.reached(within_s=2)
    while not await on.reached(within_s=2):
        assert time.monotonic() - began < 60
    assert await on.rules() == kept
    late = await on.host.run(f"{layout.FIREWALL} keep", check=False)
    assert late.code == 3
    assert "restored already" in late.stderr
    assert await on.rules() == kept


async def rules_that_nftables_refuses_change_nothing(on: Managed) -> None:
    kept = await on.rules()
    broken = b"table inet pulumi_vllm { nonsense }"
    tried = await on.host.run(f"{layout.FIREWALL} try 5", stdin=broken, check=False)
    assert tried.code == 1
    assert "syntax error" in tried.stderr
    assert await on.rules() == kept


async def a_trial_over_an_unfinished_one_is_kept(on: Managed, narrow: PutFile, ours: str) -> None:
    await on.host.run(f"{layout.FIREWALL} try 600", stdin=narrow.data)
    wide = files_of(allow=[ours, ELSEWHERE])[layout.FIREWALL_RULES]
    await put_rules(on.call, on.values(allow=[ours, ELSEWHERE]), wide, reload=False)
    kernel, disk, timers = await on.rules()
    assert ELSEWHERE in kernel
    assert disk == wide.data.decode()
    assert timers == ""


async def a_reboot_during_a_trial_loads_the_kept_rules(on: Managed, narrow: PutFile) -> None:
    kept = await on.rules()
    await on.host.run(f"{layout.FIREWALL} try 600", stdin=narrow.data)
    assert not await on.reached(within_s=2)
    on.machines.reboot("one")
    await on.host.close()
    await on.session.hosts().close()
    on.host = await log_in_when_up(on.host.address, on.pem)
    assert await on.rules() == kept


async def a_stopped_firewall_is_loaded_again(on: Managed) -> None:
    kept = await on.rules()
    for broken in (
        f"systemctl disable -q --now {layout.FIREWALL_UNIT}",
        f"/usr/sbin/nft delete table {layout.FIREWALL_TABLE}",
    ):
        await on.host.run(broken)
        await load_rules(on.call, on.values(allow=[on.client]))
        assert await on.rules() == kept


async def an_empty_ssh_allow_closes_ssh(on: Managed, ours: str) -> None:
    closed = on.values(allow=[ours], sshAllow=[])
    rules = files_of(allow=[ours], ssh_allow=[])[layout.FIREWALL_RULES]
    await refuse_lock_out(on.call.name, closed, on.host)
    await put_rules(on.call, closed, rules, reload=False)
    assert any("ssh_allow is empty, so nobody reaches SSH" in line for line in on.session.lines)
    assert not await on.reached(within_s=2)


async def test_nobody_is_locked_out(container, pem, session, monkeypatch):
    monkeypatch.setattr(firewall_trial, "_CONNECT_S", 3.0)  # a refused connection takes all of it
    monkeypatch.setattr(firewall_trial, "_PROOF_S", 9.0)
    machines, address = container
    host = await log_in_when_up(address, pem)
    on = Managed(machines, host, pem, session, await host.client_address())
    ours, narrow = f"{on.client}/32", files_of(allow=[ELSEWHERE])[layout.FIREWALL_RULES]
    await the_first_start_loads_proves_and_keeps(on, ours)
    await a_lock_out_is_refused_before_the_rules_are_loaded(on)
    await rules_that_admit_no_new_connection_are_rolled_back(on, narrow)
    await the_host_rolls_back_when_the_plugin_dies(on, narrow)
    await rules_that_nftables_refuses_change_nothing(on)
    await a_trial_over_an_unfinished_one_is_kept(on, narrow, ours)
    await a_reboot_during_a_trial_loads_the_kept_rules(on, narrow)
    await a_stopped_firewall_is_loaded_again(on)
    await an_empty_ssh_allow_closes_ssh(on, ours)
    await on.host.close()
    await session.hosts().close()
