"""Pulumi's states: exports, folders of file backends, and other backends through the Pulumi CLI."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pulumi_vllm.client.pulumi_cli import PulumiCliError, pulumi_output
from pulumi_vllm.spheron.inventory import States

_TYPES = {"vllm:spheron:Instance", "vllm:spheron:Volume"}
_CLI_TIMEOUT_S = 300.0


class StateError(Exception):
    """A state cannot be read. Without it, everything in it would look left over."""


def read_states(places: Sequence[str], *, all_states: bool = False) -> States:
    """Return the content of the states in these places: exports, folders and addresses of backends.

    Without a place it is the backend in PULUMI_BACKEND_URL, or the one that the Pulumi CLI is logged in to.

    Raises:
        StateError: a place does not exist, or a state in it cannot be read.
    """
    ids: dict[str, str] = {}
    stacks: set[tuple[str, str]] = set()
    creating: set[tuple[str, str]] = set()
    for place in places or [os.environ.get("PULUMI_BACKEND_URL", "")]:
        for state in _of_place(place):
            stacks |= {state.name} if state.name else set()
            for resource in state.resources:
                stack, project = _stack_of_urn(str(resource.get("urn", "")))
                stacks.add((stack, project))
                if resource.get("type") in _TYPES and resource.get("id"):
                    ids[str(resource["id"])] = f"{project}/{stack}"
            for resource in state.creating:
                creating.add(_stack_of_urn(str(resource.get("urn", ""))))
    return States(ids, frozenset(stacks | creating), frozenset(creating), all_states)


class _State(NamedTuple):
    name: tuple[str, str] | None
    """Stack and project, where the state names them."""
    resources: list[dict[str, Any]]
    creating: list[dict[str, Any]]
    """Instances and volumes that an update was creating when the state was written."""


def _of_place(place: str) -> list[_State]:
    if place and "://" not in place:
        return _of_path(Path(place))
    if place.startswith("file://"):
        return _of_path(Path(place.removeprefix("file://").partition("?")[0]).expanduser())
    return _of_backend(place)


def _of_path(path: Path) -> list[_State]:
    if not path.exists():
        raise StateError(f"{path}: not found; name a file of `pulumi stack export`, or a backend's folder")
    if path.is_file():
        return [_of_file(path)]
    own = path / ".pulumi" / "stacks"
    # A user's home folder is a backend too (`pulumi login --local`), and is not searched.
    folders = [own] if own.is_dir() else sorted(path.glob("**/.pulumi/stacks"))
    return [
        _of_file(file)
        for folder in folders
        for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.json.gz")])
    ]


def _of_file(file: Path) -> _State:
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StateError(f"{file}: cannot be read as a state: {error}") from None
    if not text:
        raise StateError(
            f"{file}: is empty, as after a full disk; if {file.name}.bak beside it is not, copy it to {file.name}"
        )
    return _of_text(text, str(file))


def _of_text(text: str, where: str) -> _State:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StateError(f"{where}: cannot be read as a state: {error}") from None
    if not isinstance(document, dict) or not {"checkpoint", "deployment"} & document.keys():
        raise StateError(f"{where}: not a state; name a file of `pulumi stack export`, or a backend's folder")
    checkpoint = document.get("checkpoint") or {}
    state = document.get("deployment") or checkpoint.get("latest") or {}
    creating = [
        operation["resource"]
        for operation in state.get("pending_operations") or []
        if operation.get("type") == "creating" and operation.get("resource", {}).get("type") in _TYPES
    ]
    name = _stack_and_project(str(checkpoint.get("stack") or ""))
    return _State(name, state.get("resources") or [], creating)


def _of_backend(url: str) -> list[_State]:
    """Export every stack of a backend with the Pulumi CLI. The secrets in the exports stay encrypted."""
    listed = json.loads(_pulumi(url, "stack", "ls", "--all", "--json", "--fully-qualify-stack-names") or "[]")
    found = []
    for stack in listed:
        name = str(stack["name"])
        state = _of_text(_pulumi(url, "stack", "export", "--stack", name), name)
        found.append(state._replace(name=_stack_and_project(name)))
    return found


def _pulumi(url: str, *words: str) -> str:
    environment = {"PULUMI_BACKEND_URL": url} if url else {}
    try:
        return pulumi_output(*words, timeout_s=_CLI_TIMEOUT_S, environment=environment)
    except PulumiCliError as error:
        where = url or "the backend of `pulumi login`"
        raise StateError(f"{where}: {error}, or name files of `pulumi stack export` with --state") from None


def _stack_and_project(name: str) -> tuple[str, str] | None:
    """Return stack and project from organization/project/stack."""
    parts = name.split("/")
    return (parts[-1], parts[-2]) if len(parts) > 1 else None


def _stack_of_urn(urn: str) -> tuple[str, str]:
    stack, _, rest = urn.removeprefix("urn:pulumi:").partition("::")
    return stack, rest.partition("::")[0]
