"""The pinned revision of the model on the volume, downloaded by a unit of the host."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.host import drift
from pulumi_vllm.provider.lifecycle.host_connection import (
    CONNECTION,
    DIFFERENCES,
    INSTANCE_ID,
    OBSERVED,
    REACHABLE,
    SHARED_INPUTS,
    HostResource,
    NotObserved,
    connect_host,
    observe,
    repair,
    report,
)
from pulumi_vllm.provider.lifecycle.rollback import roll_back_after_failure
from pulumi_vllm.provider.lifecycle.units import PREFLIGHT, WEIGHTS, run_unit
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Values

if TYPE_CHECKING:
    from pulumi_vllm.host.facts import ManifestFact


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The manifest of verified weights, which the unit writes on the volume."""

    files: int
    size: int
    sha256: str

    @classmethod
    def parse(cls, text: str, sha256: str) -> "_Manifest":
        files = json.loads(text)["files"]
        return cls(len(files), sum(file["size"] for file in files.values()), sha256)


class Weights(HostResource):
    """`vllm:host:Weights`."""

    token = "vllm:host:Weights"
    description = "A pinned revision of the model on the volume. Checksums are verified before vLLM reads it."
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        **SHARED_INPUTS,
        "repository": Property("string", "Repository at the model hub, as in owner/name.", required=True),
        "revision": Property("string", "Commit of the repository: 40 hexadecimal digits.", required=True),
        "directory": Property("string", "Directory on the host.", required=True),
        "differences": DIFFERENCES,
        "complete": Property("boolean", "Whether all files are present and verified (default: true)."),
    }
    outputs = {
        "files": Property("integer", "Number of files in the manifest."),
        "bytes": Property("number", "Size of all files in bytes."),
        "downloadedBytes": Property("number", "Bytes that the last create or update downloaded."),
        "downloads": Property(
            "integer",
            "How often something was downloaded. vLLM restarts when this changes (weightsDownloads).",
        ),
        "seconds": Property("number", "Duration of the last create or update in seconds."),
        "manifestSha256": Property("string", "sha256 of the manifest."),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Add defaults. `complete` is true, so that missing files show as a diff."""
        new.setdefault("complete", True)
        new.setdefault("differences", {})
        return await super().check(call, new, old)

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Return the outputs that are known. Only the hashes tell whether something has to be downloaded."""
        return {**await super().preview_update(call, old, new), "downloads": None}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Download the weights."""
        return f"{new['repository']}@{str(new['revision'])[:12]}", await self._download(call, new, before=0)

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Download what is missing while vLLM serves what it has loaded. Service restarts it for other bytes."""
        if old.get("differences"):
            host = await connect_host(call, new)
            fact = (await call.session.hosts().facts(host, weights=new["directory"])).manifests.get(
                new["directory"]
            )
            await repair(call, host, _manifest_differences(fact, old, new))
        async with roll_back_after_failure(call, new):
            return await self._download(call, new, before=int(old.get("downloads") or 1))

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Compare the manifest with the declared revision, and the files with the manifest."""
        directory = {**state, **inputs}["directory"]
        outputs = self.outputs_in(state)
        facts = await observe(call, {**state, **inputs}, weights=directory)
        if isinstance(facts, NotObserved):
            return facts.reading(outputs, inputs)
        manifest = facts.manifests.get(directory)
        if manifest is None:
            await call.warn(
                f"{call.name}: {directory} holds no manifest; `pulumi up` downloads what is missing"
            )
            return Reading({**outputs, "reachable": True}, {**inputs, "complete": False, **OBSERVED})
        if manifest.damaged:
            await call.warn(
                f"{call.name}: missing or changed since they were verified: {', '.join(manifest.damaged)}; "
                "`pulumi up` downloads them again"
            )
        found = _manifest_differences(manifest, state, {**state, **inputs})
        live = {
            "revision": manifest.revision,
            "complete": not manifest.damaged,
            **await report(call, found),
        }
        outputs["manifestSha256"] = outputs["manifestSha256"] or manifest.sha256
        return Reading({**outputs, "reachable": True}, {**inputs, **live, **OBSERVED})

    async def _download(self, call: Call, new: Values, *, before: int) -> Values:
        # The preflight first: its error is clearer, and it takes seconds where the download takes minutes.
        await run_unit(call, new, PREFLIGHT, restart=True)
        record = await run_unit(call, new, WEIGHTS, restart=True)
        host = await connect_host(call, new)
        path = f"{new['directory']}/.manifest.json"
        shown = await host.run(f"sha256sum {path} | cut -c1-64; cat {path}", timeout_s=60)
        sha256, _, text = shown.stdout.partition("\n")
        manifest = _Manifest.parse(text, sha256)
        call.session.hosts().mark_changed(host)
        downloaded = record.get("bytes_fetched", record.get("bytes_done"))
        return {
            "files": manifest.files,
            "bytes": manifest.size,
            "downloadedBytes": downloaded,
            "downloads": before + 1 if downloaded or not before else before,
            "seconds": record.get("seconds"),
            "manifestSha256": manifest.sha256,
            "reachable": True,
        }


def _manifest_differences(
    fact: "ManifestFact | None", state: Values, inputs: Values
) -> "tuple[drift.Difference, ...]":
    """Compare a manifest of the declared revision with the one in the state. A new revision has another one."""
    if fact is None or fact.revision != inputs["revision"]:
        return ()
    return drift.manifest(fact, directory=str(inputs["directory"]), sha256=state.get("manifestSha256"))
