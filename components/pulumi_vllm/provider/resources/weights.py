"""The model's pinned revision on the volume: fetched by the host's own unit, watched from here."""

import json
from typing import Any

from pulumi_vllm.provider.lifecycle.machine_state import CONNECTION, INSTANCE_ID, REACHABLE, connect_host
from pulumi_vllm.provider.lifecycle.units import PREFLIGHT, WEIGHTS, follow
from pulumi_vllm.provider.plugin.resource import Call, Property, Reading, Resource, Values

_DRAIN = "/usr/local/lib/pulumi-vllm/drain"


class Weights(Resource):
    """`vllm:host:Weights`."""

    token = "vllm:host:Weights"
    description = "A pinned model revision on the volume, every file's checksum verified before vLLM sees it."
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        "repository": Property("string", "owner/name at the hub.", required=True),
        "revision": Property("string", "Commit of 40 hex digits.", required=True),
        "directory": Property("string", "Folder on the host.", required=True),
        "complete": Property("boolean", "Whether all of it should be there (default true)."),
    }
    outputs = {
        "files": Property("integer", "Files in the manifest."),
        "bytes": Property("number", "Their sizes added up."),
        "downloadedBytes": Property("number", "Bytes that this create or update fetched."),
        "seconds": Property("number", "How long it took."),
        "manifestSha256": Property("string", "sha256 of the manifest."),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Any]:
        """Wanted is complete."""
        new.setdefault("complete", True)
        return []

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Start the unit, follow it to its end."""
        return f"{new['repository']}@{str(new['revision'])[:12]}", await self._fetch(call, new)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Another revision, or files gone: the unit finds out what is missing.

        vllm.service requires the unit and restarts with it: the gateway is drained meanwhile.
        """
        host = await connect_host(call, new)
        await call.progress("draining: vllm restarts with its weights")
        await host.run(f"{_DRAIN} --timeout 60 || true", timeout_s=120)
        outputs = await self._fetch(call, new)
        await host.run(f"{_DRAIN} --undo || true", timeout_s=60)
        return outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """The manifest's revision, and every file at its size."""
        from pulumi_vllm.host.ssh import HostError

        values = {**state, **inputs}
        outputs = {name: state.get(name) for name in self.outputs}
        try:
            host = await connect_host(call, values)
            facts = await call.session.hosts().facts(host, weights=values["directory"])
        except HostError as error:
            await call.warn(f"{call.name}: {error}; showing what was last seen")
            return Reading({**outputs, "reachable": False}, inputs)
        manifest = facts.manifest
        if manifest is None:
            await call.warn(
                f"{call.name}: no manifest in {values['directory']}; `pulumi up` fetches what is missing"
            )
            return Reading({**outputs, "reachable": True}, {**inputs, "complete": False})
        if manifest.damaged:
            names = ", ".join(manifest.damaged)
            sentence = (
                f"{call.name}: missing or changed since they were verified: {names}; `pulumi up` fetches them"
            )
            await call.warn(sentence)
        live = {"revision": manifest.revision, "complete": not manifest.damaged}
        return Reading({**outputs, "reachable": True, "manifestSha256": manifest.sha256}, {**inputs, **live})

    async def _fetch(self, call: Call, new: Values) -> Values:
        await follow(call, new, PREFLIGHT, restart=True)  # before 120 GB, and with its own sentence
        done = await follow(call, new, WEIGHTS, restart=True)
        host = await connect_host(call, new)
        text = await host.run(
            f"cat {new['directory']}/.manifest.json; sha256sum {new['directory']}/.manifest.json | cut -c1-64 >&2",
            timeout_s=60,
        )
        files = json.loads(text.stdout)["files"]
        call.session.hosts().stale(host)
        return {
            "files": len(files),
            "bytes": sum(file["size"] for file in files.values()),
            "downloadedBytes": done.get("bytes_fetched", done.get("bytes_done")),
            "seconds": done.get("seconds"),
            "manifestSha256": text.stderr.strip(),
            "reachable": True,
        }
