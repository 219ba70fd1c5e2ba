"""The serving units on a host: engine, gateway and firewall, and the readiness check that proves that they work."""

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from pulumi_vllm.host import access_drift, drift, engine_drift, service_drift
from pulumi_vllm.plan.defaults import DRAIN_TIMEOUT_S, READY_TIMEOUT_S
from pulumi_vllm.provider.lifecycle.drain import DRAIN_TIMEOUT, drain, give_back_after_failure, undo_drain
from pulumi_vllm.provider.lifecycle.endpoint_check import (
    ANSWERS,
    ENDPOINT_INPUTS,
    observe_endpoint,
    prove_endpoint,
)
from pulumi_vllm.provider.lifecycle.firewall_trial import load_rules
from pulumi_vllm.provider.lifecycle.host_connection import (
    CONNECTION,
    DIFFERENCES,
    INSTANCE_ID,
    REACHABLE,
    SHARED_INPUTS,
    Done,
    HostResource,
    NotObserved,
    connect_host,
    observe,
    partly,
    refuse,
    repair,
    report,
)
from pulumi_vllm.provider.lifecycle.instance_liveness import is_rented
from pulumi_vllm.provider.lifecycle.never_ready import END_IF_NEVER_READY, end_never_ready
from pulumi_vllm.provider.lifecycle.readiness_check import EngineFailedError, NotReadyError, ReadinessCheck
from pulumi_vllm.provider.lifecycle.rollback import keep_what_is_ready, roll_back_after_failure
from pulumi_vllm.provider.lifecycle.rolling import roll
from pulumi_vllm.provider.lifecycle.units import INSTALL, PREFLIGHT, run_unit
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Values
from pulumi_vllm.render import layout
from pulumi_vllm.render.engine_places import engine_units, is_engine

if TYPE_CHECKING:
    from collections.abc import Collection

    from pulumi_vllm.host.facts import Facts
    from pulumi_vllm.host.ssh import Host

_OTHER_UNITS = (
    layout.GATEWAY_UNIT,
    layout.FIREWALL_UNIT,
    layout.CANARY_TIMER,
    layout.LIFETIME_TIMER,
)
_OBSERVED = "commandLine"
"""Whether every engine runs with the arguments of its unit."""
# Inputs that vLLM reads when it starts.
_RESTARTING_INPUTS = ("servingDigest", "weightsRevision", "weightsDownloads", "engineVersion", _OBSERVED)


class Service(HostResource):
    """`vllm:host:Service`."""

    token = "vllm:host:Service"
    description = (
        "vLLM and its gateway, installed at pinned versions and started. It is ready when the readiness check has "
        "passed."
    )
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        **SHARED_INPUTS,
        "engineVersion": Property("string", "Version of vLLM.", required=True),
        "servingDigest": Property(
            "string", "Digest of the files for which vLLM restarts (servingDigest of Files).", required=True
        ),
        "engines": Property(
            "integer",
            "vLLM engines on the host (default: 1). Several are the units vllm@0.service, vllm@1.service and so on. "
            "They restart one after the other where only the files changed with which they start.",
        ),
        "weightsRevision": Property(
            "string", "Revision of the weights. Another revision restarts vLLM.", required=True
        ),
        "weightsDownloads": Property(
            "integer", "Output downloads of Weights. Other weights than the loaded ones restart vLLM."
        ),
        "units": Property("object", "State of each unit (default: all are active).", of="string"),
        "commandLine": Property(
            "string", "Whether vLLM runs with the arguments of its unit (default: as-declared)."
        ),
        "differences": DIFFERENCES,
        **ENDPOINT_INPUTS,
        "commandsFollow": Property(
            "boolean",
            "Whether the program runs commands on the host after this resource. They may add accounts, so the first "
            "refresh after a create records hostAccess (default: false).",
            silent=True,
        ),
        "accessAccepted": Property(
            "string",
            "A text. With another one, the next `up` accepts accounts, SSH keys, sudo rules, options of sshd and "
            "forwarded ports as the host has them then; otherwise a change of them is a difference.",
        ),
        "drainTimeoutS": DRAIN_TIMEOUT,
        "readyTimeoutS": Property(
            "number",
            "Seconds from the start of vLLM until the readiness check must have passed "
            f"(default: {READY_TIMEOUT_S}).",
            silent=True,
        ),
        "endIfNeverReady": END_IF_NEVER_READY,
    }
    outputs = {
        "evidence": Property(
            "object",
            "Versions, result of the readiness check, and durations of the start's phases.",
            of="any",
        ),
        "hostAccess": Property(
            "object",
            "Accounts, SSH keys, sudo rules, options of sshd and forwarded ports, as they were when they were last "
            "accepted.",
            of="string",
        ),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Add defaults: a healthy service, so that any problem shows as a diff."""
        new.setdefault("units", dict.fromkeys(_serving_units(new), "active"))
        new.setdefault("commandLine", drift.AS_DECLARED)
        new.setdefault("differences", {})
        new.setdefault("answers", ANSWERS)
        new.setdefault("drainTimeoutS", DRAIN_TIMEOUT_S)
        new.setdefault("readyTimeoutS", READY_TIMEOUT_S)
        return await super().check(call, new, old)

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Say in a preview already that vLLM restarts, and how long its last start took."""
        outputs = await super().preview_update(call, old, new)
        changed = {
            name
            for name in _RESTARTING_INPUTS
            if not has_unknown(new.get(name)) and old.get(name) != new.get(name)
        }
        if changed:
            took = _start_s(old)
            last = "" if took is None else f" ({took:.0f} s the last time)"
            if _may_roll(old, new):
                which = (
                    "the engine that differs" if changed == {_OBSERVED} else "the engines one after the other"
                )
                await call.info(
                    f"{call.name}: `pulumi up` restarts {which}. Requests go to the "
                    f"others while the running ones of an engine finish (at most {new['drainTimeoutS']:.0f} s) and it "
                    f"starts{last}"
                )
                return outputs
            await call.info(
                f"{call.name}: `pulumi up` restarts vLLM. New requests get 503 with Retry-After while the running ones "
                f"finish (at most {new['drainTimeoutS']:.0f} s) and vLLM starts{last}"
            )
        return outputs

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Install and start vLLM and the gateway, and run the readiness check."""
        try:
            outputs = await self._start(call, new, restart=await self._remove_damaged_engine(call, new))
        except UserError as error:
            if new.get("endIfNeverReady") and await self._never_ready(call, new, error):
                await end_never_ready(call, str(new["instanceId"]), _instance_state(new), error)
            raise
        if new.get("commandsFollow"):
            outputs["hostAccess"] = {}
        return f"service@{new['instanceId']}", outputs

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Repair what differs. Drain and restart vLLM if it has to start with other inputs. Start what is down.

        Of several engines, one that alone differs from what was declared is the only one that restarts.
        """
        changed = {name for name in _RESTARTING_INPUTS if old.get(name) != new.get(name)}
        every = engine_units(_engines(new))
        restart = set(every) if changed - {_OBSERVED} else set()
        if old.get("differences") or changed == {_OBSERVED}:
            restart |= await self._repair(call, old, new)
        if changed and not restart:
            restart = set(every)  # it is not known any more which one it was
        outputs = await self._start(call, new, restart=restart, may_roll=_may_roll(old, new))
        outputs["evidence"]["readiness"].setdefault("start_s", _start_s(old))
        if old.get("accessAccepted") == new.get("accessAccepted"):
            outputs["hostAccess"] = old.get("hostAccess") or outputs["hostAccess"]
        if old.get("differences"):
            left = _differences_in(await self._facts(call, new), outputs, new)
            refuse(call, left, done=Done(resource_id, outputs))
        return outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Observe the states of the units, and compare the process of vLLM with its unit."""
        outputs = self.outputs_in(state)
        facts, answers = await asyncio.gather(
            observe(call, {**state, **inputs}, units=_serving_units({**state, **inputs})),
            observe_endpoint(call, {**state, **inputs}),
        )
        if isinstance(facts, NotObserved):
            return facts.reading(outputs, inputs)
        names = dict.fromkeys(
            (*_serving_units({**state, **inputs}), *({**state, **inputs}.get("units") or ()))
        )
        observed = drift.units(names, facts)
        if observed.problems:
            await call.warn(f"{'; '.join(observed.problems)}; `pulumi up` repairs this")
        if ended := service_drift.canary_restarts(facts):
            await call.warn(ended)
        accepted = access_drift.accepted(facts, forwarding=_accepts_forwarding({**state, **inputs}))
        outputs["hostAccess"] = outputs["hostAccess"] or accepted
        if facts.synchronised is False:
            await call.warn(
                f"{call.name}: nothing synchronises the clock of the host; run `timedatectl set-ntp true`"
            )
        others = _differences_in(facts, outputs, {**state, **inputs})
        live = {
            "units": observed.states,
            "commandLine": observed.command_line,
            "answers": answers,
            **await report(call, others),
            **await partly(call, service_drift.not_observed(facts)),
        }
        return Reading({**outputs, "reachable": True}, {**inputs, **live})

    # -- the host -----------------------------------------------------------------------------------
    async def _facts(self, call: Call, new: Values) -> "Facts":
        """Observe the host anew. What was observed before a change says nothing about now."""
        host = await connect_host(call, new)
        call.session.hosts().mark_changed(host)
        return await call.session.hosts().facts(host, units=_serving_units(new))

    async def _repair(self, call: Call, old: Values, new: Values) -> set[str]:
        """Repair what a command repairs. Return the engines that have to be restarted."""
        facts = await self._facts(call, new)
        found = _differences_in(facts, old, new)
        await repair(call, await connect_host(call, new), found)
        if any(one.loads_firewall for one in found):
            await load_rules(call, new, again=True)
        every = engine_units(_engines(new))
        names = {one.engine for one in found if one.restarts_engine} | set(drift.with_other_arguments(facts))
        return set(every) if "" in names else names & set(every)

    async def _remove_damaged_engine(self, call: Call, new: Values) -> set[str]:
        """Let an engine that is not as its lock says be installed again. Return what has to restart then.

        A failed `up` may have left it, or somebody has edited it. No update repairs it before the create has passed.
        """
        host = await connect_host(call, new)
        facts = await call.session.hosts().facts(host, units=_serving_units(new))
        found = tuple(engine_drift.installed(facts, {}))
        await repair(call, host, found)
        return set(engine_units(_engines(new))) if found else set()

    async def _never_ready(self, call: Call, new: Values, error: UserError) -> bool:
        """Whether the readiness check is what failed, on a host on which it has never passed."""
        if not isinstance(error, NotReadyError) and not isinstance(error.__cause__, NotReadyError):
            return False
        host = await connect_host(call, new)
        shown = await host.run(f"test -e {layout.READY_FILES} && echo yes || true", timeout_s=60)
        return shown.stdout.strip() != "yes"

    async def _start(
        self, call: Call, new: Values, *, restart: "Collection[str]", may_roll: bool = False
    ) -> Values:
        async with roll_back_after_failure(call, new, restarts=True):
            readiness = await self._serve(call, new, restart=restart, may_roll=may_roll)
        host = await connect_host(call, new)
        await keep_what_is_ready(call, host)
        endpoint = await prove_endpoint(call, new)
        # Its last result may be about the time before this change.
        await host.run(f"systemctl start {layout.CANARY_UNIT} || true", timeout_s=180)
        facts = await self._facts(call, new)
        evidence = {
            "engine": new["engineVersion"],
            "revision": new["weightsRevision"],
            "readiness": readiness,
            "endpoint": endpoint,
            **facts.versions(),
        }
        host_access = access_drift.accepted(facts, forwarding=_accepts_forwarding(new))
        outputs = {"evidence": evidence, "hostAccess": host_access, "reachable": True}
        # The host restores files by itself when vLLM fails, perhaps while the new weights are being downloaded.
        refuse(call, [one for one in _differences_in(facts, outputs, new) if one.restarts_engine])
        return outputs

    async def _serve(
        self, call: Call, new: Values, *, restart: "Collection[str]", may_roll: bool
    ) -> dict[str, Any]:
        """Prepare the host, start what is to run, and return the result of the readiness check."""
        # First, because vLLM keeps serving on a host that is not fit for the new configuration. The new engine is
        # installed beside the old one, so vLLM serves meanwhile, and goes on if the installation fails.
        await run_unit(call, new, PREFLIGHT, restart=True)
        await run_unit(call, new, INSTALL, restart=bool(restart))
        await load_rules(call, new)
        host = await connect_host(call, new)
        # An engine that failed the readiness check keeps running, and may hold the cause of the failure in memory.
        units = engine_units(_engines(new))
        shown = await host.run(_SHOW_ENGINES.format(units=" ".join(units)), timeout_s=60)
        states = [word for word in shown.stdout.split() if word != _FAILED]
        if _FAILED in shown.stdout.split():
            restart = units
        serving = set(states) == {"active"} and not restart
        if restart and may_roll and "active" in states:
            down = {unit for unit, state in zip(units, states, strict=False) if state != "active"}
            await host.run(_START_BESIDE.format(units=" ".join(units)), timeout_s=180)
            await roll(call, host, new, {*restart, *down})
        else:
            await self._start_all(call, host, new, units, restart=bool(restart))
        await undo_drain(host)
        try:
            result = await ReadinessCheck(call, host, float(new["readyTimeoutS"]), units).result()
        except EngineFailedError:
            if not serving:  # one that served before comes back by itself
                stop = f"systemctl stop {layout.READINESS_UNIT} {' '.join(units)}"
                await host.run(stop, timeout_s=120)
            raise
        return result if serving else result | {"start_s": result.get("seconds")}

    async def _start_all(
        self, call: Call, host: "Host", new: Values, units: tuple[str, ...], *, restart: bool
    ) -> None:
        """Start what is not running; with `restart`, after every engine has drained and stopped."""
        names = " ".join(units)
        async with give_back_after_failure(call, new, restart=names if restart else None):
            if restart:
                await drain(call, host, new, "vllm restarts")
                await host.run(f"systemctl stop {names}", timeout_s=120)
            await host.run(_START_UNITS.format(units=names), timeout_s=180)


def _engines(values: Values) -> int:
    return int(values.get("engines") or 1)


def _serving_units(values: Values) -> tuple[str, ...]:
    return (*engine_units(_engines(values)), *_OTHER_UNITS)


def _may_roll(old: Values, new: Values) -> bool:
    """Whether several engines may restart one after the other.

    A new engine takes the place of the old one's modules, which one that serves on may still import. Engines with other
    weights would answer differently meanwhile.
    """
    same = ("engines", "engineVersion", "weightsRevision", "weightsDownloads")
    return _engines(new) > 1 and all(old.get(name) == new.get(name) for name in same)


def _accepts_forwarding(values: Values) -> bool:
    """Whether `up` accepts the ports that the host forwards. On a machine of somebody else, they were there before."""
    return bool(values.get("accessAccepted")) or not is_rented(values)


def _instance_state(new: Values) -> Values:
    """Return what `terminate` needs of the instance to unmount its volume. Nothing runs that it would have to drain."""
    connection = reveal(new["connection"])
    return {
        "instanceName": new["instanceId"],
        "address": connection.get("host"),
        "port": connection.get("port"),
        "user": connection.get("user"),
        "hostKey": connection.get("hostKey"),
        "sshPrivateKey": connection.get("privateKey"),
        "drainTimeoutS": 0,
    }


def _start_s(outputs: Values) -> float | None:
    """Return how long the last start of vLLM took until it was ready, in seconds."""
    seconds = ((outputs.get("evidence") or {}).get("readiness") or {}).get("start_s")
    return None if seconds is None else float(seconds)


def _differences_in(facts: "Facts", outputs: Values, inputs: Values) -> "tuple[drift.Difference, ...]":
    # One probe serves every resource, so it also has the units of engines that were declared before.
    declared = engine_units(_engines(inputs))
    units = {name: fact for name, fact in facts.units.items() if name in declared or not is_engine(name)}
    return service_drift.differences(
        dataclasses.replace(facts, units=units),
        digest=str(inputs["servingDigest"]),
        evidence=outputs.get("evidence") or {},
        access=outputs.get("hostAccess") or {},
    )


_FAILED = "readiness-failed"
_SHOW_ENGINES = f"""
systemctl show -P ActiveState {{units}}
grep -qs '"passed": false' {layout.READINESS_RESULT} && echo {_FAILED} || true
"""


def _starting(units: str, start: str) -> str:
    """Return the commands that enable the engines, run `start`, which starts `units`, and start the timers."""
    # Another number of engines has other units, whose files are gone already.
    return f"""
for unit in $(systemctl list-units --all --plain --no-legend {layout.ENGINE_UNIT} '{layout.EVERY_INSTANCE}' |
    cut -d ' ' -f 1); do
    case " {{units}} " in *" $unit "*) continue ;; esac
    {service_drift.end_engine("$unit")}
done
systemctl enable -q {layout.GATEWAY_UNIT} {{units}}
systemctl reset-failed {units} 2>/dev/null || true
{start}
systemctl enable -q --now {layout.CANARY_TIMER} {layout.LIFETIME_TIMER}
"""


_WITH_GATEWAY = f"{{units}} {layout.GATEWAY_UNIT}"
_START_UNITS = _starting(_WITH_GATEWAY, f"systemctl start --no-block {_WITH_GATEWAY}")
# A rolling restart needs the gateway first. One that does not start is reported by the readiness check.
_START_BESIDE = _starting(layout.GATEWAY_UNIT, f"systemctl start {layout.GATEWAY_UNIT} || true")
