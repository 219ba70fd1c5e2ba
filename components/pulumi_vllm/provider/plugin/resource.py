"""Base class of the custom resources: their properties, and what they do for each request of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar, TypeAlias

from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.protocol import UNKNOWN, Secret, reveal

Values: TypeAlias = dict[str, Any]
"""Inputs or outputs by name: plain JSON values, with `Secret` and `UNKNOWN` inside."""


class Kind(Enum):
    """Kind of a difference, named as in the engine's protocol."""

    ADD = "ADD"
    DELETE = "DELETE"
    UPDATE = "UPDATE"
    REPLACE = "UPDATE_REPLACE"


@dataclass(frozen=True, slots=True)
class Property:
    """An input or output: its JSON type, its description, and the effect of a change."""

    type: str
    description: str
    required: bool = False
    secret: bool = False
    replaces: bool = False
    """A change replaces the resource. The old one is deleted first."""
    silent: bool = False
    """A change alone causes no update. It is stored in state with the next one."""
    unreadable: bool = False
    """The cloud does not report it, so an import leaves it to the next update."""
    input_only: bool = False
    """The outputs leave it out. A refresh prints a map among the outputs whole, however little of it has changed."""
    of: str | None = None
    """Type of the elements of an array, or of the values of an object."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An invalid input. `property` is empty for a secret, because the engine prints the value of the property."""

    property: str
    reason: str


@dataclass(slots=True)
class Reading:
    """What `read` observed: the outputs, and the inputs as they really are."""

    outputs: Values
    inputs: Values
    unhealthy: str | None = None
    """Why the resource exists but does not work. The engine shows it and plans an update."""


class Resource:
    """Base class of the custom resources. They take and return plain values, and `Secret` where it is declared."""

    token: ClassVar[str]
    description: ClassVar[str]
    inputs: ClassVar[Mapping[str, Property]]
    outputs: ClassVar[Mapping[str, Property]]
    cannot_import: ClassVar[str | None] = None
    """Why an import is refused, and what to do instead. None where `read` needs the id only."""

    @property
    def input_only(self) -> frozenset[str]:
        """Names of the inputs that the outputs leave out."""
        return frozenset(name for name, prop in self.inputs.items() if prop.input_only)

    async def check(self, _call: Call, _new: Values, _old: Values | None) -> list[Failure]:
        """Validate the inputs, and add defaults to them."""
        return []

    async def before_replacement(self, _call: Call, _new: Values) -> None:
        """Refuse a replacement that can't be completed. Nothing has been deleted yet."""

    async def preview(self, _call: Call, _new: Values) -> Values:
        """Return the outputs that are known before the resource exists."""
        return {}

    async def preview_update(self, call: Call, _old: Values, new: Values) -> Values:
        """Return the outputs that an update changes. None stands for a value that is not known yet."""
        return await self.preview(call, new)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Create the resource. Returns its id and outputs."""
        raise NotImplementedError(self.token)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Observe the resource. Returns None when it is gone."""
        raise NotImplementedError(self.token)

    async def update(self, _call: Call, _resource_id: str, old: Values, _new: Values) -> Values:
        """Update the resource in place. Returns its outputs."""
        return self.outputs_in(old)

    async def delete(self, _call: Call, _resource_id: str, _state: Values) -> None:
        """Delete the resource."""
        return

    def outputs_in(self, state: Values) -> Values:
        """Return the outputs that a state holds."""
        return {name: state.get(name) for name in self.outputs}

    def compare(self, old: Values, new: Values, ignore: tuple[str, ...] = ()) -> dict[str, Kind]:
        """Return the differing inputs by property path, one level into objects: each file is a line of its own."""
        found: dict[str, Kind] = {}
        for name, prop in self.inputs.items():
            if prop.silent or name in ignore:
                continue
            before, after = reveal(old.get(name)), reveal(new.get(name))
            if before == after:
                continue
            # An import can't know every input, such as a key. Adding it later replaces nothing.
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


def check_shape(resource: Resource, new: Values, old: Values | None = None) -> list[Failure]:
    """Return a failure for every unknown input, missing input and wrong type.

    The engine checks an import too, with what `read` returned as the new and the old inputs.
    """
    failures = []
    imported = bool(old) and old == new
    for name in new:
        if name not in resource.inputs:
            near = get_close_matches(name, resource.inputs, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            failures.append(Failure(name, f"unknown input{hint}"))
    for name, prop in resource.inputs.items():
        value = reveal(new.get(name))
        if value is None:
            if prop.required and not (imported and prop.unreadable):
                failures.append(Failure(name, f"missing: {prop.description}"))
        elif value is not UNKNOWN and not isinstance(value, _PYTHON[prop.type]):
            path = "" if prop.secret or isinstance(new.get(name), Secret) else name
            failures.append(Failure(path, f"{name} must be {_TYPE_WITH_ARTICLE[prop.type]}"))
    return failures


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_TYPE_WITH_ARTICLE = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a map",
    "array": "a list",
}
