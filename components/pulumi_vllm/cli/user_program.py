"""What a user's Pulumi program does with the server: whether it declares one, and reads the stack file."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pulumi_vllm.cli import pulumi_yaml

PYTHON: Final = "python"
_DECLARES: Final = re.compile(r"pulumi[_-]vllm|vllm:index:Server|\bvllm\.Server\b")
# Server.from_config, or the namespace as a whole string or with a key. Comments and package names are no match.
_READS: Final = re.compile(r"""\bfrom_config\b|["'`]pulumi-vllm["'`]|pulumi-vllm:server""")
_SOURCES: Final = frozenset(
    (".py", ".js", ".cjs", ".mjs", ".ts", ".go", ".cs", ".fs", ".vb", ".java", ".kt", ".scala")
)
_OTHERS: Final = frozenset(("node_modules", "venv", "__pycache__", "provider"))


@dataclass(frozen=True)
class Program:
    """The program of a project."""

    where: str
    """Its file, or what it is called in a sentence."""
    runtime: str
    exists: bool
    declares: bool
    """Whether it declares a server."""
    reads: bool
    """Whether it reads pulumi-vllm:server from the stack's configuration."""

    def left(self, stack_file: str) -> str | None:
        """Return what the user must add so that the program serves what this stack file describes."""
        if self.declares and self.reads:
            return None
        lacks = "declares a server, but" if self.declares else "declares no server, so it"
        if self.runtime == PYTHON:
            return (
                f"{self.where}: {lacks} does not read {stack_file}; write there:\n"
                'from pulumi_vllm import Server\nserver = Server.from_config("server")\nserver.export_outputs()'
            )
        return (
            f"{self.where}: {lacks} does not read {stack_file}; declare vllm:index:Server, and pass it the "
            "configuration pulumi-vllm:server as `server`"
        )


def look(folder: Path, document: dict[str, Any], venv: str) -> Program:
    """Look at the program of the project in this folder. Its files may be several, in packages."""
    runtime = document.get("runtime") or {}
    name = str(runtime.get("name", PYTHON) if isinstance(runtime, dict) else runtime)
    main = str(document.get("main") or "")
    there = folder / main
    if name == PYTHON:
        where = main or "__main__.py"
        if main and there.is_dir():
            where = f"{main.rstrip('/')}/__main__.py"
        exists = (folder / where).is_file() or bool(main)
    else:
        where, exists = f"the program ({name})", True
    texts = [pulumi_yaml.read(path) for path in _files(there if there.is_dir() else there.parent, venv)]
    return Program(where, name, exists, _any(_DECLARES, texts), _any(_READS, texts))


def _any(pattern: re.Pattern[str], texts: list[str]) -> bool:
    return any(map(pattern.search, texts))


def _files(folder: Path, venv: str) -> Iterator[Path]:
    """Yield the sources. Those of a YAML program are the project's own file, or Main.yaml."""
    for where, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one[0] != "." and one not in {*_OTHERS, venv}]
        for name in names:
            path = Path(where, name)
            is_source = path.suffix in _SOURCES or path.name in {"Pulumi.yaml", "Pulumi.yml", "Main.yaml"}
            if is_source and path.is_file():
                yield path
