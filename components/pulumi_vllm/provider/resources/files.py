"""The rendered files on a host: text, mode and owner, and drop-ins that are not declared."""

import contextlib
import hashlib
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pulumi_vllm.host import drift, process_drift
from pulumi_vllm.host.errors import HostError
from pulumi_vllm.host.mask import mask
from pulumi_vllm.provider.lifecycle.access import ACCESS, lock_out, refuse_lock_out
from pulumi_vllm.provider.lifecycle.firewall_trial import put_rules
from pulumi_vllm.provider.lifecycle.host_connection import (
    CONNECTION,
    INSTANCE_ID,
    OBSERVED,
    REACHABLE,
    SHARED_INPUTS,
    HostResource,
    NotObserved,
    connect_host,
    observe,
)
from pulumi_vllm.provider.lifecycle.rollback import keep_other_files, roll_back_after_failure
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Values
from pulumi_vllm.provider.resources import secrets_in_files
from pulumi_vllm.render import layout, package_files
from pulumi_vllm.render.engine_places import engine_units, engines_of

if TYPE_CHECKING:
    from pulumi_vllm.host.facts import Facts, FileFact
    from pulumi_vllm.host.ssh import Host, PutFile

# The Service resource restarts vLLM, after it has drained the gateway.
_RESTART_ENGINE = f"restart {layout.ENGINE_UNIT}"
# cloud-init installs packages on a new host, which takes minutes. So does our own bootstrap.
_CLOUD_INIT_WITHIN_S = 900
_BOOTSTRAP_WITHIN_S = 1200
_OTHER_VERSION = (
    "is a file of another version of pulumi-vllm than this plugin's; install the same version for the program and the "
    "plugin"
)


@dataclass(frozen=True, slots=True)
class _DeclaredFiles:
    """The inputs of `Files`, parsed."""

    texts: dict[str, str]
    attributes: dict[str, str]
    actions: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    values: dict[str, str]

    @classmethod
    def from_values(cls, values: Values) -> "_DeclaredFiles":
        return cls(
            texts=reveal(values["files"]),
            attributes=reveal(values["attributes"]),
            actions=reveal(values.get("actions")) or {},
            secrets=reveal(values.get("secrets")) or {},
            values=reveal(values.get("values")) or {},
        )

    def content(self, path: str) -> bytes:
        """Return the content of a file, with secrets and values filled in."""
        text = self.texts[path]
        packaged = package_files.digest(text)
        if packaged is not None:
            return (package_files.text(packaged) or "").encode()  # `check` has refused an unknown one
        return secrets_in_files.fill(text, self.secrets, self.values).encode()

    def redact(self, path: str, live: "FileFact") -> str:
        """Return the text of a file on the host without secrets."""
        declared = self.texts.get(path)
        packaged = package_files.digest(declared or "")
        if declared is not None and packaged is None:
            return secrets_in_files.redact(live.text, live.sha256, declared, self.secrets, self.values)
        # The state may name a file of an earlier version, and a rollback may have restored another engine's lock.
        if live.sha256 == packaged or package_files.text(live.sha256) is not None:
            return package_files.reference(live.sha256)
        if declared is not None:
            return package_files.changed(declared, live.text, mask)
        return secrets_in_files.redact(live.text, live.sha256, "", self.secrets, self.values)

    def with_observed(self, texts: dict[str, str], facts: "Facts") -> "_DeclaredFiles":
        """Return these files with their texts on the host. vLLM also starts with restored files that it was given."""
        started_with = [facts.units[place.unit].started_with or {} for place in facts.engines]
        restored = facts.restored.intersection(*[{path for files in started_with for path in files}])
        return replace(self, texts=texts, actions=dict.fromkeys(restored, _RESTART_ENGINE) | self.actions)

    def serving_digest(self) -> str | None:
        """Return the digest of all files for which vLLM restarts, or None when one is not known yet."""
        texts = {path: text for path, text in self.texts.items() if self.actions.get(path) == _RESTART_ENGINE}
        if has_unknown(texts):
            return None
        return process_drift.serving_digest(
            {
                path: package_files.digest(text) or hashlib.sha256(text.encode()).hexdigest()
                for path, text in texts.items()
            }
        )


class Files(HostResource):
    """`vllm:host:Files`."""

    token = "vllm:host:Files"
    description = (
        "The configuration files, units and programs on a host. A refresh reads them back, so a preview shows every "
        "line that was changed on the host."
    )
    inputs = {
        "instanceId": INSTANCE_ID,
        "connection": CONNECTION,
        **SHARED_INPUTS,
        "access": ACCESS,
        "files": Property(
            "object",
            "Text of each file, by absolute path. @@secret:NAME@@ and @@value:NAME@@ are placeholders. "
            "@@package:SHA256@@ is the file with that digest in the package pulumi-vllm.",
            required=True,
            input_only=True,
            of="string",
        ),
        "attributes": Property(
            "object",
            'Mode and owner of each file, by path, as in "0644 root:root".',
            required=True,
            input_only=True,
            of="string",
        ),
        "actions": Property(
            "object",
            "What a change of each file triggers, by path: nothing, daemon-reload, or restart, reload or run and a "
            "unit.",
            required=True,
            silent=True,
            input_only=True,
            of="string",
        ),
        "secrets": Property(
            "object", "Values of the placeholders @@secret:NAME@@.", secret=True, of="string"
        ),
        "values": Property("object", "Values of the placeholders @@value:NAME@@.", of="string"),
    }
    outputs = {
        "paths": Property("array", "Paths of all files.", of="string"),
        "servingDigest": Property("string", "sha256 of the files for which vLLM restarts."),
        "reachable": REACHABLE,
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Require a mode and an owner for each file, and a value for each placeholder."""
        failures = await super().check(call, new, old)
        if has_unknown(new["files"]):
            return failures
        declared = _DeclaredFiles.from_values(new)
        values_known = not has_unknown(new.get("secrets")) and not has_unknown(new.get("values"))
        for path, text in declared.texts.items():
            if not path.startswith("/"):
                failures.append(Failure(f'files["{path}"]', "not an absolute path; begin it with /"))
            if path not in declared.attributes:
                failures.append(Failure(f'attributes["{path}"]', 'missing; add "0644 root:root"'))
            packaged = package_files.digest(text)
            if packaged is not None and package_files.text(packaged) is None:
                failures.append(Failure(f'files["{path}"]', _OTHER_VERSION))
            elif values_known:
                failures += [
                    Failure(f'files["{path}"]', f"{placeholder} has no value; add it to secrets or values")
                    for placeholder in secrets_in_files.unfilled(text, declared.secrets, declared.values)
                ]
        return failures

    async def preview(self, call: Call, new: Values) -> Values:
        """Return paths and digest, which need no host."""
        return {
            "paths": sorted(new["files"]),
            "servingDigest": _DeclaredFiles.from_values(new).serving_digest(),
        }

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Warn in a preview already of firewall rules that the update refuses."""
        outputs = await super().preview_update(call, old, new)
        if layout.FIREWALL_RULES in new["files"] and not has_unknown(new.get("connection")):
            with contextlib.suppress(HostError):  # the refresh has reported that the host does not answer
                reason = await lock_out(new, await connect_host(call, new))
                if reason:
                    await call.warn(f"{call.name}: `pulumi up` refuses these firewall rules: {reason}")
        return outputs

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Run the bootstrap if it is due, and write the files."""
        return f"files@{new['instanceId']}", await self._write(call, new, undeclared=())

    async def change(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Write the files that differ, and remove those that are no longer declared."""
        undeclared = {*old["files"], *(old.get("paths") or ())} - set(new["files"])
        changed = [name for name in ("secrets", "values") if reveal(old.get(name)) != reveal(new.get(name))]
        if changed:
            await call.progress(f"{' and '.join(changed)} changed")
        async with roll_back_after_failure(call, new):
            return await self._write(call, new, undeclared=sorted(undeclared))

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Observe the files, with secrets redacted."""
        declared = _DeclaredFiles.from_values({**state, **inputs})
        owned = tuple(state.get("paths") or declared.texts)
        outputs = self.outputs_in(state)
        units = engine_units(engines_of(declared.texts))
        facts = await observe(call, {**state, **inputs}, paths=owned, units=units)
        if isinstance(facts, NotObserved):
            return facts.reading(outputs, inputs)
        observed = drift.files(
            declared.texts,
            declared.attributes,
            owned={*owned, *facts.restored},
            facts=facts,
            redact=declared.redact,
        )
        if restored := [path for path in observed.changed if path in facts.restored]:
            await call.warn(f"restored on the host after an update that failed: {', '.join(restored)}")
        if changed := [path for path in observed.changed if path not in facts.restored]:
            await call.warn(f"changed on the host: {', '.join(changed)}; `pulumi up` restores the files")
        live = {"files": observed.texts, "attributes": observed.attributes}
        # After a rollback, the program may declare again what is on the host.
        outputs["servingDigest"] = declared.with_observed(observed.texts, facts).serving_digest()
        return Reading({**outputs, "reachable": True}, {**inputs, **live, **OBSERVED})

    # -- the host -----------------------------------------------------------------------------------
    async def _write(self, call: Call, new: Values, *, undeclared: Collection[str]) -> Values:
        from pulumi_vllm.host.ssh import PutFile  # asyncssh takes 0.2 s to import

        declared = _DeclaredFiles.from_values(new)
        host = await connect_host(call, new)
        if layout.FIREWALL_RULES in declared.texts:
            await refuse_lock_out(call.name, new, host)
        files = {}
        for path in declared.texts:
            mode, owner = declared.attributes[path].split()
            files[path] = PutFile(path, declared.content(path), mode, owner)
        if layout.BOOTSTRAP in files:
            await self._bootstrap(call, host, files[layout.BOOTSTRAP])
        await call.progress(f"comparing {len(files)} files")
        paths = sorted(files)
        rules = files.pop(layout.FIREWALL_RULES, None)
        changed = set(await host.put(files.values()))
        if undeclared:
            await host.run("rm -f -- " + shlex.join(undeclared), timeout_s=60)
            changed |= set(undeclared)
        await self._apply_changes(call, host, declared.actions, changed)
        if rules is not None:
            await put_rules(call, new, rules, reload=layout.unit_file(layout.FIREWALL_UNIT) in changed)
        if changed and layout.ROLLBACK in declared.texts:
            await keep_other_files(host)
        call.session.hosts().mark_changed(host)
        return {"paths": paths, "servingDigest": declared.serving_digest(), "reachable": True}

    async def _bootstrap(self, call: Call, host: "Host", script: "PutFile") -> None:
        """Run the script that cloud-init runs, unless this version of it has run already."""
        # cloud-init may still be running, and two package managers at a time would fail.
        stamp = await host.run(
            f"timeout {_CLOUD_INIT_WITHIN_S} cloud-init status --wait >/dev/null 2>&1 || true; "
            f"cat {layout.BOOTSTRAP_STAMP} 2>/dev/null || true",
            timeout_s=_CLOUD_INIT_WITHIN_S + 60,
        )
        if stamp.stdout.strip() == hashlib.sha256(script.data).hexdigest():
            return
        await call.progress("preparing the host: packages, users, directories")
        await host.put([script])
        try:
            await host.run(script.path, timeout_s=_BOOTSTRAP_WITHIN_S)
        except HostError as error:
            raise UserError(
                f"{call.name}: the bootstrap failed: {error}; fix the cause, then run `pulumi up` again"
            ) from error

    async def _apply_changes(
        self, call: Call, host: "Host", actions: dict[str, str], changed: set[str]
    ) -> None:
        """Reload systemd once, then reload or restart the affected units that are running."""
        commands = []
        if any("/systemd/" in path for path in changed):  # drop-ins may be below /run as well
            commands.append("systemctl daemon-reload")
        wanted = {actions[path] for path in changed if path in actions}
        # A restart reads what a reload would. Once, HAProxy did not stop so soon after a reload, and systemd killed it.
        wanted -= {
            action.replace("restart ", "reload ", 1) for action in wanted if action.startswith("restart ")
        }
        for action in sorted(wanted):
            verb, _, unit = action.partition(" ")
            if verb == "run":
                commands.append(f"systemctl restart --no-block {unit}")
            elif verb in {"reload", "restart"} and unit != layout.FIREWALL_UNIT and action != _RESTART_ENGINE:
                commands.append(f"if systemctl is-active -q {unit}; then systemctl {verb} {unit}; fi")
        if commands:
            await call.progress(f"{len(changed)} files changed: {'; '.join(commands)}"[:200])
            await host.run("\n".join(commands), timeout_s=180)
