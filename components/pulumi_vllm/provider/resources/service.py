"""The serving units: engine installed, vLLM healthy, gateway open, readiness passed; and whether that is still so."""

import json
from typing import Any

from pulumi_vllm.provider.lifecycle.machine_state import (
    CONNECTION,
    INSTANCE_ID,
    REACHABLE,
    connect_host,
    look_s,
)
from pulumi_vllm.provider.lifecycle.units import INSTALL, PREFLIGHT, follow, why
from pulumi_vllm.provider.plugin.resource import Call, Property, Reading, Resource, UserError, Values

_PROGRAMS = "/usr/local/lib/pulumi-vllm"
_WANTED = {"vllm.service": "active", "haproxy.service": "active", "vllm-firewall.service": "active"}
_READINESS = "/run/pulumi-vllm/readiness.json"
# A start of a large model takes minutes of a paid machine: what died twice is not tried until systemd gives up.
_STARTS_LOST = 2


class Service(Resource):
    """`vllm:host:Service`."""

    token = "vllm:host:Service"
    description = (
        "vLLM behind its gateway: installed at the locked versions, warmed up, proved by the readiness."
    )
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        "engineVersion": Property("string", "Version of vLLM.", required=True),
        "servingDigest": Property(
            "string", "Digest of the files that vLLM has to restart for.", required=True
        ),
        "weightsRevision": Property(
            "string", "Revision being served; another one means a restart.", required=True
        ),
        "units": Property("object", "Units by the state they should be in.", of="string"),
        "commandLine": Property("string", "as-declared: the running process has the unit's arguments."),
        "drainTimeoutS": Property(
            "number", "Seconds that running requests get before a restart.", silent=True
        ),
        "readyTimeoutS": Property("number", "Seconds from start to a passed readiness.", silent=True),
    }
    outputs = {
        "evidence": Property("object", "Versions, readiness and phase timings.", of="any"),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Any]:
        """What a healthy service looks like."""
        new.setdefault("units", dict(_WANTED))
        new.setdefault("commandLine", "as-declared")
        new.setdefault("drainTimeoutS", 30)
        new.setdefault("readyTimeoutS", 3600)
        return []

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Install, preflight, start, readiness."""
        return f"service@{new['instanceId']}", await self._serve(call, new, restart=False)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Drain and restart what serves something else; start what is down."""
        moved = [
            name
            for name in ("servingDigest", "weightsRevision", "engineVersion", "commandLine")
            if old.get(name) != new.get(name)
        ]
        return await self._serve(call, new, restart=bool(moved))

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """The units' states, and the process against its unit."""
        from pulumi_vllm.host.ssh import HostError

        values = {**state, **inputs}
        outputs = {name: state.get(name) for name in self.outputs}
        wanted: Values = values.get("units") or dict(_WANTED)
        try:
            host = await connect_host(call, values)
            facts = await call.session.hosts().facts(host, units=tuple(_WANTED))
        except HostError as error:
            await call.warn(f"{call.name}: {error}; showing what was last seen")
            return Reading({**outputs, "reachable": False}, inputs)
        live = {
            unit: facts.units[unit].active if unit in facts.units else "missing"
            for unit in {**_WANTED, **wanted}
        }
        down = [f"{unit} is {state}" for unit, state in live.items() if state != "active"]
        process = facts.process_matches("vllm.service") if live.get("vllm.service") == "active" else True
        line = "as-declared" if process else "other arguments than its unit"
        if not process:
            down.append("vllm runs with other arguments than its unit")
        if down:
            await call.warn(f"{'; '.join(sorted(down))}; `pulumi up` puts it right")
        return Reading({**outputs, "reachable": True}, {**inputs, "units": live, "commandLine": line})

    # -- the host -----------------------------------------------------------------------------------
    async def _serve(self, call: Call, new: Values, *, restart: bool) -> Values:
        await follow(call, new, PREFLIGHT, restart=True)  # first: a machine that is unfit goes on serving
        host = await connect_host(call, new)
        # An engine that the readiness check found wrong goes on running: with the cause gone it still has it in memory.
        restart = restart or (await host.run(_FOUND_WRONG, timeout_s=60)).stdout.strip() == "yes"
        if restart:
            drain_s = float(new.get("drainTimeoutS") or 0)
            await call.progress(f"draining, then restarting vllm (up to {drain_s:.0f} s)")
            script = f"{_PROGRAMS}/drain --timeout {drain_s:.0f} || true; systemctl stop vllm.service"
            await host.run(script, timeout_s=drain_s + 120)
        # Restarted, because a lock may have changed; with the stamp in place the program has nothing to do.
        # vllm.service requires the unit, so only once vllm is down.
        await follow(call, new, INSTALL, restart=restart)
        host = await connect_host(call, new)
        await host.run(
            "systemctl enable -q vllm-firewall.service haproxy.service vllm.service; "
            "systemctl reset-failed vllm.service haproxy.service 2>/dev/null || true; "
            "systemctl start vllm-firewall.service; systemctl start --no-block vllm.service haproxy.service",
            timeout_s=180,
        )
        await host.run(
            f"if test -S /run/pulumi-vllm-gateway/admin.sock; then {_PROGRAMS}/drain --undo || true; fi",
            timeout_s=60,
        )
        readiness = await self._readiness(call, host, float(new.get("readyTimeoutS") or 3600))
        call.session.hosts().stale(host)
        facts = await call.session.hosts().facts(host, units=tuple(_WANTED))
        evidence = {
            "engine": new["engineVersion"],
            "revision": new["weightsRevision"],
            "readiness": readiness,
            **facts.versions(),
        }
        return {"evidence": evidence, "reachable": True}

    async def _readiness(self, call: Call, host: Any, timeout_s: float) -> Values:
        """Start the readiness check: a healthy /health proves nothing, golden tokens through the gateway do."""
        await host.run(_START_READINESS, timeout_s=60)
        waited, looks = 0.0, 0
        while waited < timeout_s:
            await call.sleep(look_s(looks))
            waited += look_s(looks)
            looks += 1
            shown = await host.run(_GATE_STATE, timeout_s=60)
            vllm, lost, readiness, text = (part.strip() for part in (shown.stdout + "\n\n\n").split("\n", 3))
            if vllm == "failed" or int(lost or 0) >= _STARTS_LOST:
                words = await why(host, "vllm.service")
                await host.run("systemctl stop vllm-readiness.service vllm.service", timeout_s=120)
                raise UserError(f"{call.name}: vllm.service failed: {words}")
            if text:
                result: Values = json.loads(text)
                if result.get("passed"):
                    return result
                raise UserError(
                    f"{call.name}: the readiness check failed: {result.get('why')}; "
                    f"vllm says: {await why(host, 'vllm.service')}"
                )
            if readiness == "failed":
                raise UserError(
                    f"{call.name}: the readiness check failed: {await why(host, 'vllm-readiness.service')}"
                )
            await call.progress(f"waiting for the readiness check ({waited:.0f} s); vllm is {vllm}")
        raise UserError(
            f"{call.name}: not ready after {timeout_s:.0f} s; look at `journalctl -u vllm`, then `pulumi up` again"
        )


_FOUND_WRONG = f"grep -qs '\"passed\": false' {_READINESS} && echo yes || true"

_START_READINESS = f"""
rm -f {_READINESS}
systemctl reset-failed vllm-readiness.service 2>/dev/null || true
systemctl restart --no-block vllm-readiness.service
"""

_GATE_STATE = f"""
systemctl show -P ActiveState vllm.service
systemctl show -P NRestarts vllm.service
systemctl show -P ActiveState vllm-readiness.service
cat {_READINESS} 2>/dev/null || true
"""
