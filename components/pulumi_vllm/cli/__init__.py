"""The command `pulumi-vllm`. One module per subcommand."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from pulumi_vllm import __version__
from pulumi_vllm.cli.terminal import TROUBLE, USAGE, say

# Name → module with `add_parser(commands)`, which sets `run`. Only the module of the given command is imported.
_COMMANDS = {
    "bench": "pulumi_vllm.cli.bench",
    "drift": "pulumi_vllm.cli.stack_drift",
    "init": "pulumi_vllm.cli.init",
    "lint": "pulumi_vllm.cli.lint",
    "plan": "pulumi_vllm.cli.plan",
    "recommend": "pulumi_vllm.cli.recommend",
    "schema": "pulumi_vllm.cli.schema",
    "smoke": "pulumi_vllm.cli.smoke",
    "sweep": "pulumi_vllm.cli.sweep",
    "local": "pulumi_vllm.cli.local",
}


class _Parser(argparse.ArgumentParser):
    """Exits with USAGE for an invalid command line. argparse's own 2 has a meaning in `sweep` and `recommend`."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _Parser(prog="pulumi-vllm", description="Serve an open-weight language model on rented GPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else list(arguments)
    named = _COMMANDS.get(words[0]) if words else None
    for module in _COMMANDS.values() if named is None else (named,):
        import_module(module).add_parser(commands)
    parsed = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] | None = getattr(parsed, "run", None)
    if run is None:
        parser.print_help()
        return USAGE
    try:
        return run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if type(error).__module__.startswith("pulumi_vllm"):
            say(str(error))
            return TROUBLE
        raise
