"""The command `pulumi-vllm`. One module per subcommand."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

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


# What argparse says → where, then what, as all errors are written.
_ARGPARSE = (
    (r"the following arguments are required: (.+)", r"\1: missing"),
    (r"argument (.+?): expected one argument", r"\1: has no value"),
    (r"argument (.+?): invalid choice: (.+?) \(choose from (.+)\)", r"\1: \2 is unknown, known are \3"),
    (r"argument (.+?): invalid int value: (.+)", r"\1: \2 is not a whole number"),
    (r"argument (.+?): invalid float value: (.+)", r"\1: \2 is not a number"),
    (r"argument (.+?): (.+)", r"\1: \2"),
)


class _InvalidError(Exception):
    """A command line that a parser refuses, with the parser, which knows its usage."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class _Parser(argparse.ArgumentParser):
    """Exits with USAGE for an invalid command line. argparse's own 2 has a meaning in `sweep` and `recommend`."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.set_defaults(parser=self)  # of a command and its subcommand, the subcommand's counts

    def error(self, message: str) -> NoReturn:
        """Leave the message to `main`."""
        found = (re.sub(f"^{pattern}$", text, message) for pattern, text in _ARGPARSE)
        message = next((one for one in found if one != message), message)
        raise _InvalidError(self, f"{message}; see `{self.prog} --help`")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse an empty text, as a variable that is not set leaves it. It would count as an option left out."""
        if "" in arg_strings and action.nargs not in {argparse.REMAINDER, argparse.PARSER}:
            raise argparse.ArgumentError(action, "is empty")
        return super()._get_values(action, arg_strings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _Parser(prog="pulumi-vllm", description="Serve an open-weight language model on rented GPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else list(arguments)
    named = _COMMANDS.get(words[0]) if words else None
    for module in _COMMANDS.values() if named is None else (named,):
        import_module(module).add_parser(commands)
    as_json = "--json" in words
    try:
        return _run(parser, words)
    except _InvalidError as error:
        return _refuse_usage(error.parser, str(error), as_json=as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            message = (
                f"{error.filename}: {error.strerror}; correct the path, or what keeps it from being used"
            )
        elif type(error).__module__.startswith("pulumi_vllm"):
            message = str(error)
        else:
            raise
        say(message)
        if as_json:
            print_json({"refused": message.splitlines()})
        return TROUBLE


def _run(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Run the command that the words name."""
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        parsed.parser.error(f"{shlex.join(unknown)}: unknown here")
    run: Callable[[argparse.Namespace], int] | None = getattr(parsed, "run", None)
    if run is None:
        parser.print_help()
        return USAGE
    try:
        return run(parsed)
    except (UsageError, ClientUsageError) as error:
        raise _InvalidError(parsed.parser, str(error)) from None
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
