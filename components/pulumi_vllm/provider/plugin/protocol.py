"""Pulumi's gRPC messages, and the conversion between their values and Python's.

The generated modules are loaded from the SDK's files without `import pulumi`, which would add 0.7 s to every preview.
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import struct_pb2

if TYPE_CHECKING:
    import grpc.aio

_ALIAS = "pulumi_vllm_protocol"

Message: TypeAlias = Any
"""A protobuf message. The generated code has no types."""

Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"
"""What gRPC knows of a request."""


def _load() -> None:
    """Import `pulumi/runtime/proto` under another name. Its modules import each other relatively, so this works."""
    if _ALIAS in sys.modules:
        return
    found = importlib.util.find_spec("pulumi")
    if found is None or not found.submodule_search_locations:
        raise ImportError("the pulumi SDK is not installed; run `pip install pulumi`")
    folder = Path(next(iter(found.submodule_search_locations))) / "runtime" / "proto"
    spec = importlib.util.spec_from_file_location(
        _ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no protocol buffers; reinstall the pulumi SDK")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_ALIAS] = module
    spec.loader.exec_module(module)


_load()


def protobuf_module(module: str) -> ModuleType:
    """Import a generated module by its short name, as in `protobuf_module("provider_pb2").CreateRequest`."""
    return importlib.import_module(f"{_ALIAS}.{module}")


# Signatures of special values inside a Struct: sdk/go/common/resource/properties.go in Pulumi's repository.
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"
_UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS: Final = frozenset(
    {
        _UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


class Unknown:
    """A value that a preview can't know yet."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that the engine encrypts in state and never prints."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def reveal(value: Any) -> Any:
    """Return the value with every `Secret` unwrapped, at any depth."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, dict):
        return {key: reveal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [reveal(inner) for inner in value]
    return value


def has_unknown(value: Any) -> bool:
    """Whether the value contains `UNKNOWN`, at any depth."""
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(has_unknown(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_unknown(inner) for inner in value)
    return value is UNKNOWN


def from_struct(struct: Message) -> dict[str, Any]:
    """Convert a protobuf Struct to plain Python values, with `Secret` and `UNKNOWN` inside."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _from_value(value: Message) -> Any:  # noqa: PLR0911 (one line per kind)
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = from_struct(value.struct_value)
        if fields.get(_SIGNATURE) == _SECRET:
            return Secret(fields.get("value"))
        return fields
    if kind == "list_value":
        return [_from_value(inner) for inner in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None


def to_struct(values: dict[str, Any]) -> Message:
    """Convert plain Python values, with `Secret` and `UNKNOWN` inside, to a protobuf Struct."""
    struct = struct_pb2.Struct()
    for key, value in values.items():
        _to_value(value, struct.fields[key])
    return struct


def _to_value(value: Any, into: Message) -> None:  # noqa: C901 (one branch per kind)
    if isinstance(value, Secret):
        into.struct_value.fields[_SIGNATURE].string_value = _SECRET
        _to_value(value.value, into.struct_value.fields["value"])
    elif value is UNKNOWN:
        into.string_value = _UNKNOWN_STRING
    elif value is None:
        into.null_value = 0
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = float(value)
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        for key, inner in value.items():
            _to_value(inner, into.struct_value.fields[key])
    elif isinstance(value, list | tuple):
        into.list_value.SetInParent()
        for inner in value:
            _to_value(inner, into.list_value.values.add())
    else:
        raise TypeError(f"a {type(value).__name__} can't be stored in Pulumi's state")
