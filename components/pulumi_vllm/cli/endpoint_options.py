"""Options of `smoke` and `bench` that name an endpoint: a stack of this project, or a URL."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import say
from pulumi_vllm.client.errors import UsageError

if TYPE_CHECKING:
    from pulumi_vllm.client.endpoint import Endpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--stack", metavar="NAME", help="a stack of the project in this folder (default: the selected one)"
    )
    parser.add_argument(
        "--url", metavar="URL", help="another endpoint: https://host/v1; the key is read from VLLM_API_KEY"
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="with --url: the gateway's CA certificate, PEM (default: the CAs that this computer trusts)",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="model name in requests (default: the stack's, or the only one)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def find_endpoint(parsed: argparse.Namespace) -> "Endpoint":
    """Return the endpoint; raises UsageError or ClientError."""
    # `pulumi-vllm --help` loads this module too; ssl takes 0.03 s to import.
    from pulumi_vllm.client import endpoint

    if parsed.url is not None:
        if parsed.stack:
            raise UsageError("--stack and --url: give only one of them")
        return endpoint.from_url(parsed.url, parsed.ca)
    if parsed.ca:
        raise UsageError("--ca: only valid with --url; a stack exports its own CA certificate")
    say("reading the stack's outputs from Pulumi")
    return endpoint.from_stack(parsed.stack)
