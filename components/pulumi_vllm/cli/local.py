"""`pulumi-vllm local`: the local cloud, with the lock files of this product's engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm_local import command

from pulumi_vllm import plan

if TYPE_CHECKING:
    import argparse

ENGINE_LOCKS = Path(plan.__file__).parent / "data" / "engines"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `local` and its subcommands."""
    command.add_parser(commands, ENGINE_LOCKS)
