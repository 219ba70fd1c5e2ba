"""The rendered files on the host: text, mode and owner, and the drop-ins nobody declared."""

import hashlib
from typing import Any

from pulumi_vllm.provider.lifecycle.machine_state import CONNECTION, INSTANCE_ID, REACHABLE, connect_host
from pulumi_vllm.provider.plugin.resource import (
    Call,
    Failure,
    Property,
    Reading,
    Resource,
    UserError,
    Values,
    has_unknown,
    reveal,
)
from pulumi_vllm.provider.resources import secrets_in_files

_BOOTSTRAP = "/usr/local/lib/pulumi-vllm/bootstrap"
_SERVING = "restart vllm.service"


class Files(Resource):
    """`vllm:host:Files`."""

    token = "vllm:host:Files"
    description = (
        "The rendered files of a host. Read back on refresh, so a preview shows what changed, line by line."
    )
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        "files": Property(
            "object",
            "Text by absolute path; @@secret:NAME@@ stands for a secret.",
            required=True,
            of="string",
        ),
        "attributes": Property("object", '"mode owner:group", by path.', required=True, of="string"),
        "actions": Property(
            "object", "What a change of the file means, by path.", required=True, silent=True, of="string"
        ),
        "secrets": Property("object", "Secret values by name.", secret=True, of="string"),
        "values": Property("object", "Values that are known only later, by name.", of="string"),
    }
    outputs = {
        "paths": Property("array", "The paths we own.", of="string"),
        "servingDigest": Property("string", "sha256 over the files that vLLM has to restart for."),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Every file has a mode and an owner, every placeholder a value."""
        files, attributes = new["files"], new["attributes"]
        failures: list[Failure] = []
        if has_unknown(files):
            return failures
        unknown = has_unknown(new.get("secrets")) or has_unknown(new.get("values"))
        secrets, values = reveal(new.get("secrets")) or {}, reveal(new.get("values")) or {}
        for path, text in files.items():
            if not path.startswith("/"):
                failures.append(Failure(f'files["{path}"]', "a path on the host starts with /"))
            if path not in attributes:
                failures.append(Failure(f'attributes["{path}"]', 'missing; give "0644 root:root"'))
            if not unknown:
                failures += [
                    Failure(f'files["{path}"]', f"nothing fills {place}")
                    for place in secrets_in_files.missing(reveal(text), secrets, values)
                ]
        return failures

    async def preview(self, call: Call, new: Values) -> Values:
        """The digest needs no host."""
        return {"paths": sorted(new["files"]), "servingDigest": self._digest(new)}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Bootstrap the host where that is due, write what differs, act on it."""
        return f"files@{new['instanceId']}", await self._converge(call, new, ())

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Write what differs and remove what is no longer declared."""
        gone = tuple(path for path in {*old["files"], *(old.get("paths") or ())} if path not in new["files"])
        changed = tuple(
            name for name in ("secrets", "values") if reveal(old.get(name)) != reveal(new.get(name))
        )
        if changed:
            await call.progress(f"{' and '.join(changed)} changed")
        return await self._converge(call, new, gone)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """The host's own text, with every secret hidden."""
        from pulumi_vllm.host.ssh import HostError

        values = {**state, **inputs}
        paths = list(state.get("paths") or values["files"])
        outputs = {name: state.get(name) for name in self.outputs}
        try:
            host = await connect_host(call, values)
            facts = await call.session.hosts().facts(host, paths=tuple(paths))
        except HostError as error:
            await call.warn(f"{call.name}: {error}; showing what was last seen")
            return Reading({**outputs, "reachable": False}, inputs)
        wanted, attributes = values["files"], values["attributes"]
        secrets, known = reveal(values.get("secrets")) or {}, reveal(values.get("values")) or {}
        live: Values = {}
        modes: Values = {}
        for path in paths:
            fact = facts.files.get(path)
            if fact is not None:
                live[path] = secrets_in_files.hide(fact.text, reveal(wanted.get(path, "")), secrets, known)
                modes[path] = f"{fact.mode} {fact.owner}"
        live |= dict(facts.drop_ins)
        modes |= {path: attributes.get(path, "") for path in facts.drop_ins if path in attributes}
        changed = sorted(path for path in {*live, *wanted} if live.get(path) != wanted.get(path))
        changed += sorted(
            path for path in modes if modes[path] != attributes.get(path) and path not in changed
        )
        if changed:
            await call.warn(f"changed on the host: {', '.join(changed)}; `pulumi up` puts it back")
        return Reading({**outputs, "reachable": True}, {**inputs, "files": live, "attributes": modes})

    # -- the host -----------------------------------------------------------------------------------
    def _digest(self, new: Values) -> str | None:
        texts = {path: text for path, text in new["files"].items() if new["actions"].get(path) == _SERVING}
        if has_unknown(texts):
            return None
        return hashlib.sha256(repr(sorted(reveal(texts).items())).encode()).hexdigest()

    async def _converge(self, call: Call, new: Values, gone: tuple[str, ...]) -> Values:
        from pulumi_vllm.host.ssh import PutFile

        host = await connect_host(call, new)
        secrets, values = reveal(new.get("secrets")) or {}, reveal(new.get("values")) or {}
        texts = {
            path: secrets_in_files.fill(reveal(text), secrets, values).encode()
            for path, text in new["files"].items()
        }
        await self._bootstrap(call, host, texts.get(_BOOTSTRAP), new)
        await call.progress(f"comparing {len(texts)} files")
        put = []
        for path, data in texts.items():
            mode, owner = new["attributes"][path].split()
            put.append(PutFile(path, data, mode, owner))
        changed = set(await host.put(put))
        if gone:
            await host.run("rm -f -- " + " ".join(_quote(path) for path in gone), timeout_s=60)
            changed |= set(gone)
        await self._act(call, host, new["actions"], changed)
        call.session.hosts().stale(host)
        return {"paths": sorted(texts), "servingDigest": self._digest(new), "reachable": True}

    async def _bootstrap(self, call: Call, host: Any, script: bytes | None, new: Values) -> None:
        """The same script that cloud-init runs, where cloud-init did not, or an older one."""
        from pulumi_vllm.host.ssh import HostError, PutFile

        if script is None:
            return
        digest = hashlib.sha256(script).hexdigest()
        # cloud-init may be at it: let it finish, or two package managers meet.
        waited = await host.run(
            "timeout 900 cloud-init status --wait >/dev/null 2>&1 || true; "
            "cat /var/lib/pulumi-vllm/bootstrap.stamp 2>/dev/null || true",
            timeout_s=960,
        )
        if waited.stdout.strip() == digest:
            return
        await call.progress("preparing the machine (packages, user, folders)")
        mode, owner = new["attributes"][_BOOTSTRAP].split()
        await host.put([PutFile(_BOOTSTRAP, script, mode, owner)])
        try:
            await host.run(_BOOTSTRAP, timeout_s=1200)
        except HostError as error:
            raise UserError(
                f"{call.name}: the bootstrap failed: {error}; fix the cause, then run `pulumi up` again"
            ) from error

    async def _act(self, call: Call, host: Any, actions: Values, changed: set[str]) -> None:
        """Reload systemd once, then reload or restart what already runs."""
        due = {
            actions.get(path, "daemon-reload" if path.startswith("/etc/systemd/") else "nothing")
            for path in changed
        }
        lines = []
        if any(path.startswith("/etc/systemd/system/") for path in changed):
            lines.append("systemctl daemon-reload")
        for action in sorted(due):
            verb, _, unit = action.partition(" ")
            if verb == "reload":
                lines.append(f"if systemctl is-active -q {unit}; then systemctl reload {unit}; fi")
            elif verb == "restart" and action != _SERVING:
                lines.append(f"if systemctl is-active -q {unit}; then systemctl restart {unit}; fi")
            elif verb == "run":
                lines.append(f"systemctl restart --no-block {unit}")
        if lines:
            await call.progress(f"{len(changed)} files changed: {'; '.join(lines)}"[:200])
            await host.run("\n".join(lines), timeout_s=180)


def _quote(path: str) -> str:
    import shlex

    return shlex.quote(path)
