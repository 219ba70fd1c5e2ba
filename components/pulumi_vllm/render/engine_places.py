"""Where each engine of a host is: its unit, port and files. A single engine has the names without a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

_INSTANCE: Final = re.compile(r"vllm@[0-7]\.service")
_SINGLE_SERVER: Final = "local"
_SERVER: Final = "engine{}"
INSTANCE_SERVER: Final = _SERVER.format("%i")
"""The gateway's name of one of several engines in the unit that they share."""


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """One engine: its unit, its port on loopback, and its files."""

    unit: str
    server: str
    """Its name in the gateway's backend."""
    port: int
    environment: str
    canary_config: str
    canary_result: str

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{layout.ENGINE_ADDRESS}:{self.port}"


def engine_places(engines: int) -> tuple[EnginePlace, ...]:
    """The places of so many engines."""
    if engines == 1:
        single = EnginePlace(
            layout.ENGINE_UNIT,
            _SINGLE_SERVER,
            layout.ENGINE_PORT,
            layout.ENGINE_ENVIRONMENT,
            layout.CANARY_CONFIG,
            layout.CANARY_RESULT,
        )
        return (single,)
    return tuple(_place(number) for number in range(engines))


def _place(number: int) -> EnginePlace:
    return EnginePlace(
        layout.ENGINE_TEMPLATE.replace("@", f"@{number}"),
        _SERVER.format(number),
        layout.ENGINE_PORT + number,
        _numbered(layout.ENGINE_ENVIRONMENT, number),
        _numbered(layout.CANARY_CONFIG, number),
        _numbered(layout.CANARY_RESULT, number),
    )


def _numbered(path: str, number: int | str) -> str:
    stem, _, suffix = path.rpartition(".")
    return f"{stem}-{number}.{suffix}"


def instance(path: str) -> str:
    """The path of one of several engines in the unit that they share, where `%i` is the engine's number."""
    return _numbered(path, "%i")


def engine_units(engines: int) -> tuple[str, ...]:
    """The units of so many engines."""
    return tuple(place.unit for place in engine_places(engines))


def places_of(units: Iterable[str]) -> tuple[EnginePlace, ...]:
    """The places of those units that are engines."""
    present = set(units)
    every = (*engine_places(1), *engine_places(layout.MOST_ENGINES))
    return tuple(place for place in every if place.unit in present)


def is_engine(unit: str) -> bool:
    """Whether a unit is that of an engine."""
    return unit == layout.ENGINE_UNIT or _INSTANCE.fullmatch(unit) is not None


def engines_of(paths: Iterable[str]) -> int:
    """The number of engines for which these files were rendered."""
    several = set(paths) & {
        _numbered(layout.ENGINE_ENVIRONMENT, number) for number in range(layout.MOST_ENGINES)
    }
    return len(several) or 1
