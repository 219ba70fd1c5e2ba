"""What a custom resource is to the adapter: properties, and seven verbs over plain dictionaries."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from pulumi_vllm.provider.plugin.protocol import UNKNOWN, Secret, has_unknown, reveal

if TYPE_CHECKING:
    from pulumi_vllm.provider.plugin.session import Session

Values = dict[str, Any]


class UserError(Exception):
    """A sentence for the person at the keyboard: what, where, what to do. Never holds a secret."""


class Partial(UserError):  # noqa: N818 (the name is the sentence)
    """The thing exists, and may be billed, but is not ready: its id and outputs stay in state."""

    def __init__(self, sentence: str, resource_id: str, outputs: Values) -> None:
        super().__init__(sentence)
        self.resource_id = resource_id
        self.outputs = outputs


class Cancelled(UserError):  # noqa: N818 (the name is the sentence)
    """The person pressed Ctrl-C, or the engine asked to stop."""


class Kind(Enum):
    """How one property differs."""

    ADD = "ADD"
    DELETE = "DELETE"
    UPDATE = "UPDATE"
    REPLACE = "UPDATE_REPLACE"


@dataclass(frozen=True, slots=True)
class Property:
    """One input or output: its JSON type, what it means, and what a change of it does."""

    type: str
    description: str
    required: bool = False
    secret: bool = False
    replaces: bool = False
    """A change makes a new resource (the old one goes first)."""
    silent: bool = False
    """Used at creation only: a later change is kept in state and does nothing."""
    of: str | None = None
    """Type of the elements of an array or of the values of an object."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A refused input; `property` is empty where the value is secret, because the engine prints values."""

    property: str
    reason: str


@dataclass(slots=True)
class Call:
    """What surrounds one request: whose it is, where to report, when to stop."""

    urn: str
    session: "Session"
    ignore: tuple[str, ...] = ()
    preview: bool = False
    timeout_s: float = 0.0
    """`customTimeouts` of the resource; 0 where there are none."""

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.urn.split("::")[0].removeprefix("urn:pulumi:")

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.split("::")[-1]

    async def progress(self, message: str) -> None:
        """Say what is going on; shown while it lasts, not kept."""
        await self.session.progress(self.urn, message)

    async def info(self, message: str) -> None:
        """Say something worth keeping."""
        await self.session.log(self.urn, message, "INFO")

    async def warn(self, message: str) -> None:
        """Warn once per resource and text in this process."""
        await self.session.warn(self.urn, message)

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise `Cancelled` at once when the person gives up."""
        try:
            await asyncio.wait_for(self.session.cancelled.wait(), seconds)
        except TimeoutError:
            return
        raise Cancelled("cancelled")


@dataclass(slots=True)
class Reading:
    """What `read` found: the outputs, and the inputs as the world has them."""

    outputs: Values
    inputs: Values
    unhealthy: str | None = None
    """Why the thing exists but does not work; the engine shows it and plans an update."""


@dataclass(slots=True)
class Resource:
    """Base of the custom resources. Verbs get and give plain values; `Secret` only where declared."""

    token: ClassVar[str]
    description: ClassVar[str]
    inputs: ClassVar[Mapping[str, Property]]
    outputs: ClassVar[Mapping[str, Property]]
    stateless: bool = field(default=True, init=False)

    async def check(self, _call: Call, _new: Values, _old: Values | None) -> list[Failure]:
        """Refuse what cannot work, and fill in defaults."""
        return []

    async def preview(self, _call: Call, _new: Values) -> Values:
        """Outputs known before anything exists."""
        return {}

    async def preview_update(self, call: Call, _old: Values, new: Values) -> Values:
        """Outputs known before an update."""
        return await self.preview(call, new)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Make it; returns id and outputs."""
        raise NotImplementedError(self.token)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Look at the real thing; None when it is gone."""
        raise NotImplementedError(self.token)

    async def update(self, _call: Call, _resource_id: str, old: Values, _new: Values) -> Values:
        """Change it in place; returns its outputs."""
        return {name: old.get(name) for name in self.outputs}

    async def delete(self, _call: Call, _resource_id: str, _state: Values) -> None:
        """Remove it."""
        return

    def compare(self, old: Values, new: Values, ignore: tuple[str, ...] = ()) -> dict[str, Kind]:
        """Which inputs differ, by property path; one level into objects, so that a file is a line."""
        found: dict[str, Kind] = {}
        for name, prop in self.inputs.items():
            if prop.silent or name in ignore:
                continue
            before, after = reveal(old.get(name)), reveal(new.get(name))
            if before == after:
                continue
            # What an import could not know (a key, say) is added; it makes nothing new.
            if prop.replaces and before is not None:
                found[name] = Kind.REPLACE
            elif isinstance(before, dict) and isinstance(after, dict) and not prop.secret:
                found.update(_compare_maps(name, before, after, ignore))
            else:
                found[name] = _kind(before, after)
        return found


def _compare_maps(name: str, before: Values, after: Values, ignore: tuple[str, ...]) -> dict[str, Kind]:
    return {
        path: _kind(before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and (path := f'{name}["{key}"]') not in ignore
    }


def _kind(before: Any, after: Any) -> Kind:
    if before is None:
        return Kind.ADD
    return Kind.DELETE if after is None else Kind.UPDATE


def check_shape(resource: Resource, new: Values) -> list[Failure]:
    """Unknown names, missing ones and wrong types, all together."""
    failures = []
    for name in new:
        if name not in resource.inputs:
            near = get_close_matches(name, resource.inputs, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            failures.append(Failure(name, f"unknown input{hint}"))
    for name, prop in resource.inputs.items():
        value = reveal(new.get(name))
        if value is None:
            if prop.required:
                failures.append(Failure(name, f"missing: {prop.description}"))
        elif value is not UNKNOWN and not isinstance(value, _PYTHON[prop.type]):
            path = "" if prop.secret or isinstance(new.get(name), Secret) else name
            failures.append(Failure(path, f"{name} must be {_ARTICLE[prop.type]}"))
    return failures


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_ARTICLE = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a map",
    "array": "a list",
}

__all__ = [
    "UNKNOWN",
    "Call",
    "Cancelled",
    "Failure",
    "Kind",
    "Partial",
    "Property",
    "Reading",
    "Resource",
    "Secret",
    "UserError",
    "Values",
    "check_shape",
    "has_unknown",
    "reveal",
]
