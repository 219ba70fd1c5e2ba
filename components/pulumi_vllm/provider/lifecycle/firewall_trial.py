"""Load firewall rules without locking anybody out: on trial, proved by a new connection, then kept.

The host restores the previous rules by itself, whatever happens to this process or to the connection.
"""

import contextlib
import time
from typing import TYPE_CHECKING, Final

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.provider.lifecycle.access import Access, refuse_lock_out
from pulumi_vllm.provider.lifecycle.host_connection import Connection, connect_host
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host, PutFile

# Long enough for the proof, short enough to wait for.
_TRIAL_S: Final = 60
# A busy host may take longer than one attempt to answer. What is left of the trial is for `keep`.
_PROOF_S, _CONNECT_S = 40.0, 8.0


async def put_rules(call: Call, values: Values, rules: "PutFile", *, reload: bool) -> bool:
    """Write the rules to the host, and load them where they are in use. Returns whether the file was changed.

    With `reload`, unchanged rules are loaded too.

    Raises:
        UserError: the rules did not admit a new connection.
    """
    host = await connect_host(call, values)
    shown = await host.run(_SHOW_USE, timeout_s=60)
    in_use, _, on_disk = shown.stdout.partition("\n")
    changed = on_disk != rules.data.decode()
    if in_use == "yes" and (changed or reload):
        await _load(call, values, host, rules.data)
    # Rules that a boot would load are written by the host itself, once they are proved.
    return bool(await host.put([rules])) or changed


async def load_rules(call: Call, values: Values, *, again: bool = False) -> None:
    """Load the rules on the host's disk, now and at every boot, unless a table of ours is loaded. `again` replaces it.

    Raises:
        UserError: the rules would lock this computer out, or did not admit a new connection.
    """
    host = await connect_host(call, values)
    show = f"cat {layout.FIREWALL_RULES}" if again else _SHOW_RULES_TO_LOAD
    rules = (await host.run(show, timeout_s=60)).stdout
    if rules:
        await refuse_lock_out(call.name, values, host)
        await _load(call, values, host, rules.encode())


async def _load(call: Call, values: Values, host: "Host", rules: bytes) -> None:
    """Load the rules on trial, and keep them over a new connection. The open one would outlive rules that refuse it."""
    access = Access.from_values(values)
    await call.progress("loading the firewall rules")
    await host.run(f"{layout.FIREWALL} try {_TRIAL_S}", stdin=rules, timeout_s=60)
    tried_at = time.monotonic()
    if access is not None and not access.ssh:
        await host.run(_KEEP, timeout_s=60)
        await call.warn(
            f"{call.name}: server.access.ssh_allow is empty, so nobody reaches SSH any more; later previews can't "
            "observe the host, and `pulumi up` can't change it"
        )
        return
    try:
        await _keep(call, values, host, until=tried_at + _PROOF_S)
    except HostError as error:
        with contextlib.suppress(HostError):
            await host.run(f"{layout.FIREWALL} restore", timeout_s=20)
        restored = await _answers(call, values, host, until=tried_at + _TRIAL_S + 2 * _CONNECT_S)
        raise UserError(
            f"{call.name}: the new firewall rules admitted no new SSH connection ({error}); "
            + (
                "the host has its previous rules again"
                if restored
                else f"the host restores its previous rules by itself {_TRIAL_S} s after the attempt, but has not "
                "answered since"
            )
            + "; correct server.access, then run `pulumi up` again"
        ) from error


async def _keep(call: Call, values: Values, host: "Host", *, until: float) -> None:
    """Keep the rules over a new connection, which proves that they admit one before a moment of the monotonic clock."""
    while True:
        try:
            new = await _new_connection(call, values, host)
        except HostError:
            if time.monotonic() >= until:
                raise
            await call.sleep(1.0)
            continue
        try:
            await new.run(_KEEP, timeout_s=30)
        finally:
            await new.close()
        return


async def _answers(call: Call, values: Values, host: "Host", *, until: float) -> bool:
    """Whether the host admits a new connection before a moment of the monotonic clock."""
    while True:
        with contextlib.suppress(HostError):
            await (await _new_connection(call, values, host)).close()
            return True
        if time.monotonic() >= until:
            return False
        await call.sleep(1.0)


async def _new_connection(call: Call, values: Values, host: "Host") -> "Host":
    from pulumi_vllm.host.ssh import connect  # asyncssh takes 0.2 s to import

    private_key = Connection.from_values(call, values).private_key
    return await connect(host.address, private_key, host.host_key, _CONNECT_S)


_KEEP = f"{layout.FIREWALL} keep"

# A boot loads the rules of an enabled unit, and a stopped unit may be enabled.
_SHOW_USE = f"""
if systemctl is-active -q {layout.FIREWALL_UNIT} || systemctl is-enabled -q {layout.FIREWALL_UNIT} 2>/dev/null; then
    echo yes
else
    echo no
fi
cat {layout.FIREWALL_RULES} 2>/dev/null || true
"""

_SHOW_RULES_TO_LOAD = f"""
systemctl is-active -q {layout.FIREWALL_UNIT} && systemctl is-enabled -q {layout.FIREWALL_UNIT} \\
    && /usr/sbin/nft list table {layout.FIREWALL_TABLE} >/dev/null 2>&1 || cat {layout.FIREWALL_RULES}
"""
