"""The command `pulumi-vllm`. One module per subcommand."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from pulumi_vllm import __version__
from pulumi_vllm.cli.terminal import TROUBLE, USAGE, UsageError, print_json, say
from pulumi_vllm.client.errors import UsageError as ClientUsageError

# Name → module with `add_parser(commands)`, which sets `run`. Only the module of the given command is imported.
_COMMANDS = {
    "bench": "pulumi_vllm.cli.bench",
    "cost": "pulumi_vllm.cli.cost",
    "drift": "pulumi_vllm.cli.stack_drift",
    "init": "pulumi_vllm.cli.init",
    "lint": "pulumi_vllm.cli.lint",
    "model": "pulumi_vllm.cli.model",
    "plan": "pulumi_vllm.cli.plan",
    "recommend": "pulumi_vllm.cli.recommend",
    "schema": "pulumi_vllm.cli.schema",
    "reconcile": "pulumi_vllm.cli.reconcile",
    "smoke": "pulumi_vllm.cli.smoke",
    "sweep": "pulumi_vllm.cli.sweep",
    "upgrade": "pulumi_vllm.cli.upgrade",
    "local": "pulumi_vllm.cli.local",
}


class _InvalidError(Exception):
    """A command line that a parser refuses, with the parser, which knows its usage."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class _Parser(argparse.ArgumentParser):
    """Exits with USAGE for an invalid command line. argparse's own 2 has a meaning in `sweep` and `recommend`."""

    def error(self, message: str) -> NoReturn:
        """Leave the message to `main`."""
        raise _InvalidError(self, message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _Parser(prog="pulumi-vllm", description="Serve an open-weight language model on rented GPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else list(arguments)
    named = _COMMANDS.get(words[0]) if words else None
    for module in _COMMANDS.values() if named is None else (named,):
        import_module(module).add_parser(commands)
    own = commands.choices[words[0]] if named is not None else parser
    as_json = "--json" in words
    try:
        return _run(parser, own, words)
    except _InvalidError as error:
        return _refuse_usage(error.parser, str(error), as_json=as_json)
    except (UsageError, ClientUsageError) as error:
        return _refuse_usage(own, str(error), as_json=as_json)
    except Exception as error:
        if not type(error).__module__.startswith("pulumi_vllm"):
            raise
        say(str(error))
        if as_json:
            print_json({"refused": str(error).splitlines()})
        return TROUBLE


def _run(parser: argparse.ArgumentParser, own: argparse.ArgumentParser, words: list[str]) -> int:
    """Run the command that the words name. `own` is its parser."""
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        own.error(f"unrecognized arguments: {' '.join(unknown)}")
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


def _refuse_usage(parser: argparse.ArgumentParser, message: str, *, as_json: bool) -> int:
    """Print the usage of the command and what is wrong with the command line."""
    parser.print_usage(sys.stderr)
    for line in message.splitlines():
        print(f"{parser.prog}: error: {line}", file=sys.stderr)
    if as_json:
        print_json({"refused": message.splitlines()})
    return USAGE
