"""The resources that Server registers under Pulumi's mocks: type, name, inputs. `${name.output}` is an output."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pulumi
import yaml
from pulumi_vllm.provider.plugin.package_schema import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLES = RESOURCES
_LONG = dict.fromkeys(("files", "attributes", "actions"), "see files.txt") | {
    "cloudInit": "see cloud-init.json"
}
_SECRET = "4dabf18193072939515e22adb298388d"  # Pulumi's key in a secret value


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.made: dict[str, tuple[str, dict[str, Any]]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[args.name] = args.typ, args.inputs
        outputs = _TABLES[args.typ].outputs if args.typ in _TABLES else {}
        known = {
            name: {} if declared.type == "object" else f"${{{args.name}.{name}}}"
            for name, declared in outputs.items()
            if declared.type != "number"
        }
        return f"${{{args.name}.id}}", {**args.inputs, **known}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


def text(block: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    """The resources as YAML, sorted by name."""
    mocks = _Mocks()
    with _Loops():
        pulumi.runtime.set_mocks(mocks, preview=False, stack="STACK")

        @pulumi.runtime.test
        def run() -> Any:
            from pulumi_vllm import Server

            return Server("server", {"server": dict(block), **args}).endpoint

        run()
    shown = {
        name: {"type": kind, **{key: _shown(key, value) for key, value in sorted(inputs.items())}}
        for name, (kind, inputs) in sorted(mocks.made.items())
        if kind in _TABLES
    }
    return str(yaml.safe_dump(shown, sort_keys=False, width=110, allow_unicode=True))


def _shown(key: str, value: Any) -> Any:
    """A value in a readable form: long texts by name, secrets marked, whole numbers as integers."""
    if key in _LONG:
        return _LONG[key]
    if isinstance(value, dict) and _SECRET in value:
        return {"secret": _shown("", value["value"])}
    if isinstance(value, dict):
        return {name: _shown("", one) for name, one in sorted(value.items())}
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Loops:
    """Closes the event loops of Pulumi's mocks. Otherwise pytest reports unclosed loops as an error."""

    def __enter__(self) -> None:
        self._policy, self._made = asyncio.get_event_loop_policy(), []
        self._real = self._policy.new_event_loop
        self._policy.new_event_loop = self._new  # type: ignore[method-assign]
        asyncio.set_event_loop(asyncio.new_event_loop())

    def _new(self) -> asyncio.AbstractEventLoop:
        self._made.append(self._real())
        return self._made[-1]

    def __exit__(self, *_: object) -> None:
        self._policy.new_event_loop = self._real  # type: ignore[method-assign]
        for loop in self._made:
            loop.close()
        asyncio.set_event_loop(None)
