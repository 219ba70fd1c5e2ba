"""A machine that somebody else made: observed over SSH, used while the stack exists, given back, never ended."""

import contextlib
import secrets
import shlex
from typing import TYPE_CHECKING

from pulumi_vllm.host import drift
from pulumi_vllm.host.errors import AuthRefused, HostError, Unreachable
from pulumi_vllm.plan.defaults import DRAIN_TIMEOUT_S
from pulumi_vllm.plan.own_machine import ID_PREFIX, Store
from pulumi_vllm.provider.lifecycle import own_host
from pulumi_vllm.provider.lifecycle.give_back import give_back
from pulumi_vllm.provider.lifecycle.host_connection import (
    DIFFERENCES,
    OBSERVED,
    REACHABLE,
    SHARED_INPUTS,
    HostResource,
    NotObserved,
    connect_host,
    observe,
    refuse,
    repair,
    report,
)
from pulumi_vllm.provider.lifecycle.poll import PollTimeoutError, poll
from pulumi_vllm.provider.lifecycle.volume_mount import VolumeMount, format_device, measure_gb, mount_volume
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown
from pulumi_vllm.provider.plugin.resource import Failure, Kind, Property, Reading, Values
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.facts import Facts
    from pulumi_vllm.host.ssh import Host

_REPLACEMENT = (
    "the machine is another one. vLLM is drained, stopped and removed from the one before, if that still answers, and "
    "set up on the new one"
)
_CHECK_SSH = (
    "check address, port, user and private key of `host`, and that the machine's SSH admits this computer"
)
# Machines of the big clouds answer within one or two minutes.
_BOOTED_WITHIN_S = 300.0
_PAUSES_S = (1.0, 2.0, 3.0, 5.0)
_REACHED_BY = ("address", "port", "user", "privateKey", "hostKey")


class Machine(HostResource):
    """`vllm:host:Machine`."""

    token = "vllm:host:Machine"
    description = (
        "A machine that somebody else made. It is observed over SSH, keeps weights and caches in a place of its own, "
        "and is given back when this resource is deleted. It is never ended."
    )
    cannot_import = (
        "it cannot be imported, because an import does not know how to reach it; let `pulumi up` create it, which "
        "takes over what the same stack has left on the host"
    )
    inputs = {
        "address": Property("string", "IP address or DNS name.", required=True, replaces=True),
        "port": Property("integer", "SSH port (default: 22)."),
        "user": Property("string", "Login user, who is root or can become root with sudo (default: root)."),
        "privateKey": Property(
            "string", "Private SSH key, PEM or OpenSSH, without a passphrase.", required=True, secret=True
        ),
        "hostKey": Property(
            "string",
            'SSH host key, as in "ssh-ed25519 AAAA…". Without it, the key of the first contact is pinned.',
            replaces=True,
        ),
        "triggers": Property(
            "array",
            "What identifies the machine, such as the id of the resource that made it. Other values mean another one.",
            replaces=True,
        ),
        "storePath": Property("string", "Directory or mounted path for weights and caches.", replaces=True),
        "storeDevice": Property(
            "string", "Device for weights and caches. It is formatted only if it is blank.", replaces=True
        ),
        "drainTimeoutS": Property(
            "number",
            "Seconds that running requests get to finish before the machine is given back.",
            silent=True,
        ),
        **SHARED_INPUTS,
        "mounted": Property(
            "boolean", f"Whether the store should be mounted on {layout.MODELS} (default true)."
        ),
        "differences": DIFFERENCES,
    }
    outputs = {
        "pinnedHostKey": Property(
            "string", "SSH host key of the first contact. Another one is always an error."
        ),
        "gpus": Property("array", "Names of the GPUs.", of="string"),
        "driver": Property("string", "Version of the NVIDIA driver."),
        "operatingSystem": Property("string", "Name of the operating system."),
        "source": Property("string", "What is mounted: a directory or a file system."),
        "unitSha256": Property("string", "sha256 of the unit that mounts it."),
        "fileSystemGb": Property(
            "number", f"Size of {layout.MODELS} in GB, as the host showed it when it was mounted."
        ),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Add defaults, and require one place for weights and caches."""
        if old:
            call.session.in_state.add(call.urn)
        new.setdefault("port", 22)
        new.setdefault("user", "root")
        new.setdefault("drainTimeoutS", DRAIN_TIMEOUT_S)
        new.setdefault("mounted", True)
        new.setdefault("differences", {})
        failures = await super().check(call, new, old)
        if (new.get("storePath") is None) == (new.get("storeDevice") is None):
            failures.append(Failure("storePath", "set this or storeDevice, and not both"))
        return failures

    def compare(self, old: Values, new: Values, ignore: tuple[str, ...] = ()) -> dict[str, Kind]:
        """Compare the inputs. A host key that is no longer given stays pinned."""
        found = super().compare(old, new, ignore)
        if new.get("hostKey") is None:
            found.pop("hostKey", None)
        return found

    async def before_replacement(self, call: Call, new: Values) -> None:
        """Refuse another machine that can't be used, before vLLM is removed from the present one."""
        if _is_known(new):
            with contextlib.suppress(HostError):  # it may have been made a second ago
                await self._look(call, await connect_host(call, _connection(new)), new)

    async def preview(self, call: Call, new: Values) -> Values:
        """Look at a host whose address is known, and refuse one that can't be used as it is."""
        if call.urn in call.session.in_state:
            await call.info(f"{call.name}: {_REPLACEMENT}")
        elif _is_known(new):
            try:
                host = await connect_host(call, _connection(new))
            except (Unreachable, AuthRefused) as error:
                raise UserError(f"{call.name}: {error}; {_CHECK_SSH}") from None
            await self._look(call, host, new)
        return {"pinnedHostKey": new["hostKey"]} if isinstance(new.get("hostKey"), str) else {}

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Refuse a changed host key in a preview already. Nothing is looked at again."""
        self.refuse_other_host_key(call, old)
        return {}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Wait for the host, look at it, note who uses it, and mount the place for weights and caches."""
        host = await self._wait_until_booted(call, new)
        seen = await self._look(call, host, new)
        resource_id = f"{ID_PREFIX}{secrets.token_hex(6)}"
        try:
            outputs = await self._take(call, host, new, blank=seen.blank_device)
        except HostError as error:
            partial = {**dict.fromkeys(self.outputs), "pinnedHostKey": host.host_key}
            raise Partial(f"{call.name}: {error}", resource_id, partial) from error
        return resource_id, outputs

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Mount the store again, and repair what differs. Another user or port must lead to the same host key."""
        values = _connection(new, old)
        host = await connect_host(call, values)
        if old.get("differences"):
            refuse(call, [one for one in await self._differences(call, values, old) if not one.repairable])
        outputs = await self._take(call, host, new, blank=False)
        if old.get("differences"):
            await repair(call, host, await self._differences(call, values, outputs))
            refuse(call, await self._differences(call, values, outputs))
        return outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return whether the host answers, with which GPUs and driver, and whether the store is mounted."""
        outputs = self.outputs_in(state)
        facts = await observe(call, {**inputs, **_connection({**state, **inputs}, state)})
        if isinstance(facts, NotObserved):
            return facts.reading(outputs, inputs)
        mounted = layout.MODELS in facts.mounts
        if not mounted and inputs.get("mounted", True):
            await call.warn(f"{call.name}: {layout.MODELS} is not mounted on the host; `pulumi up` mounts it")
        found = drift.volume(facts, name=_owner(call), unit_sha256=state.get("unitSha256"))
        live = {"mounted": mounted, **await report(call, found), **OBSERVED}
        return Reading({**outputs, **_hardware(facts), "reachable": True}, {**inputs, **live})

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Drain, stop and disable our units, unmount the store, and remove our files. The machine runs on."""
        try:
            host = await connect_host(call, _connection(state, state))
            await call.progress("draining, stopping and removing vLLM")
            await give_back(host, float(state.get("drainTimeoutS") or 0))
        except HostError as error:
            if call.urn in call.session.in_state or state.get("unreachable") == "warn":
                await call.warn(f"{call.name}: vLLM was not removed from the machine: {error}")
                return
            raise UserError(
                f"{call.name}: vLLM may still run on the machine: {error}; run `pulumi destroy` again when this is "
                f"corrected, or `pulumi state delete --target-dependents '{call.urn}'` if the machine exists no more"
            ) from error
        place = state.get("storePath") or state.get("storeDevice")
        await call.info(
            f"{call.name}: the machine runs on. Weights and caches are kept on {place}, the engine in {layout.VENV}"
        )

    # -- the host -----------------------------------------------------------------------------------
    async def _wait_until_booted(self, call: Call, new: Values) -> "Host":
        """Wait for SSH and for cloud-init. Another resource may have made the machine a second ago."""
        failure = HostError(f"{new['address']} was not tried")

        async def connected() -> "Host | None":
            nonlocal failure
            try:
                return await connect_host(call, _connection(new))
            except (Unreachable, AuthRefused) as error:
                failure = error
            return None

        try:
            host = await poll(
                call,
                connected,
                within_s=call.timeout_s or _BOOTED_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"waiting for SSH: {failure}",
            )
        except PollTimeoutError as error:
            raise UserError(
                f"{call.name}: {failure}; gave up after {error.waited_s:.0f} s; {_CHECK_SSH}"
            ) from None
        # It may still make the file system that keeps the weights.
        wait = f"timeout {_BOOTED_WITHIN_S:.0f} cloud-init status --wait >/dev/null 2>&1 || true"
        await host.run(wait, timeout_s=_BOOTED_WITHIN_S + 60)
        return host

    async def _look(self, call: Call, host: "Host", new: Values) -> own_host.Seen:
        store = _store(new)
        seen = await own_host.look(host, store)
        for warning in own_host.warnings(seen):
            await call.warn(f"{call.name}: {warning}")
        if found := own_host.problems(seen, _owner(call), store):
            listed = "".join(f"\n  * {one}" for one in found)
            raise UserError(
                f"{call.name}: the machine can't be used as it is, and nothing on it was changed:{listed}"
            )
        return seen

    async def _take(self, call: Call, host: "Host", new: Values, *, blank: bool) -> Values:
        owner, store = _owner(call), _store(new)
        await host.run(
            f"install -d {layout.STATE}; printf '%s\\n' {shlex.quote(owner)} > {own_host.OWNER_FILE}",
            timeout_s=60,
        )
        if store.device is None:
            await host.run(f"install -d {shlex.quote(str(store.path))}", timeout_s=60)
            mount = VolumeMount(owner, "bind", str(store.path))
        else:
            if blank:
                await call.info(f"formatting {store.device} (blank) as ext4")
                await format_device(host, VolumeMount(owner, "block"), store.device)
            shown = await host.run(f"blkid -p -s UUID -o value {shlex.quote(store.device)}", timeout_s=60)
            mount = VolumeMount(owner, "device", f"UUID={shown.stdout.strip()}")
        unit_sha256 = await mount_volume(host, mount)
        size_gb = await measure_gb(host, mount)
        call.session.hosts().mark_changed(host)
        facts = await call.session.hosts().facts(host)
        return {
            "pinnedHostKey": host.host_key,
            **_hardware(facts),
            "source": mount.source,
            "unitSha256": unit_sha256,
            "fileSystemGb": size_gb,
            "reachable": True,
        }

    async def _differences(self, call: Call, values: Values, state: Values) -> "tuple[drift.Difference, ...]":
        host = await connect_host(call, values)
        call.session.hosts().mark_changed(host)
        facts = await call.session.hosts().facts(host)
        return drift.volume(facts, name=_owner(call), unit_sha256=state.get("unitSha256"))


def _connection(values: Values, state: Values | None = None) -> Values:
    """Return the input `connection` that the resources on a host have. A key that was pinned before counts."""
    pinned = values.get("hostKey") or (state or {}).get("pinnedHostKey")
    return {
        "connection": {
            "host": values.get("address"),
            "port": values.get("port"),
            "user": values.get("user"),
            "privateKey": values.get("privateKey"),
            "hostKey": pinned,
        }
    }


def _is_known(new: Values) -> bool:
    """Whether the host can be looked at. The address of a machine that is yet to be made is unknown."""
    return not has_unknown({name: new.get(name) for name in (*_REACHED_BY, "storePath", "storeDevice")})


def _hardware(facts: "Facts") -> Values:
    return {"gpus": [gpu.name for gpu in facts.gpus], "driver": facts.driver, "operatingSystem": facts.os}


def _owner(call: Call) -> str:
    return own_host.owner_text(call.project, call.stack, call.name)


def _store(values: Values) -> Store:
    return Store(values.get("storePath"), values.get("storeDevice"))
