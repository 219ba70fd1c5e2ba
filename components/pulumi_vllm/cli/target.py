"""Which stack `smoke` and `bench` talk to: its outputs, or an address."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli.say import say

if TYPE_CHECKING:
    from pulumi_vllm.client.endpoint import Endpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where."""
    parser.add_argument(
        "--stack", metavar="NAME", help="a stack of this folder's project (default: selected)"
    )
    parser.add_argument(
        "--url", metavar="URL", help="any other endpoint: https://host/v1; its key is read from VLLM_API_KEY"
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="with --url: the CA of the gateway, PEM (default: this machine's)",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="as in requests (default: the stack's, or the only one)"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def find(parsed: argparse.Namespace) -> "Endpoint":
    """The endpoint; raises UsageError or ClientError."""
    from pulumi_vllm.client import endpoint
    from pulumi_vllm.client.errors import UsageError

    if parsed.url is not None:
        if parsed.stack:
            raise UsageError("--stack and --url: give one of them")
        found = endpoint.from_url(parsed.url, parsed.ca)
    else:
        if parsed.ca:
            raise UsageError("--ca: a stack brings its own; it belongs to --url")
        say("asking Pulumi for the stack's outputs")
        found = endpoint.from_stack(parsed.stack)
    return found
