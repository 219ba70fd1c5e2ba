"""The hashed requirements of each engine, and of uv, which installs them."""

from __future__ import annotations

import pathlib

_ENGINES = pathlib.Path(__file__).parent / "data" / "engines"


def of(version: str) -> dict[str, str]:
    """Python minor version → text of the engine's hashed requirements."""
    found = sorted(
        (_ENGINES / version).glob("requirements-3.*.txt"), key=lambda path: (len(path.name), path.name)
    )
    return {path.stem.removeprefix("requirements-"): path.read_text() for path in found}


def uv() -> str:
    """Hashed requirements of uv, which installs an engine on a host whose Python has no lock."""
    return (_ENGINES / "requirements-uv.txt").read_text()


def every() -> list[str]:
    """The texts of all locks of all engines."""
    return [path.read_text() for path in _ENGINES.rglob("requirements-*.txt")]
