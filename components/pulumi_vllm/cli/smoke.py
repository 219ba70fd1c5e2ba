"""`pulumi-vllm smoke`: check that a running stack supports what its clients need; exit 1 if a check fails."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from pulumi_vllm.cli import endpoint_options
from pulumi_vllm.cli.terminal import TROUBLE, print_json, say
from pulumi_vllm.client.errors import printable

if TYPE_CHECKING:
    from pulumi_vllm.client.checks import Finding
    from pulumi_vllm.client.endpoint import Endpoint


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `smoke`."""
    text = "check a running stack with the requests that its clients make; exit 1 if a check fails"
    smoke = commands.add_parser(
        "smoke",
        help=text,
        description=f"{text.capitalize()}. The requests are: chat, stream, reasoning_effort, a tool call, structured "
        "output, an image, what clients of other servers send, requests beyond the limits, and the longest allowed "
        "prompt. Each passes, fails, or does not apply to this engine.",
    )
    endpoint_options.add_arguments(smoke)
    smoke.set_defaults(run=_smoke)


def _smoke(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; asyncio takes 0.05 s to import.
    import asyncio

    endpoint = endpoint_options.find_endpoint(parsed)
    findings = asyncio.run(_run_checks(endpoint, parsed.model, as_json=parsed.json))
    failed = [one.check for one in findings if one.outcome == "fail"]
    if parsed.json:
        checks = [dataclasses.asdict(one) for one in findings]
        print_json({"endpoint": endpoint.url, "passed": not failed, "checks": checks})
    elif failed:
        say(f"{len(failed)} of {len(findings)} failed: {', '.join(failed)}")
    return TROUBLE if failed else 0


async def _run_checks(endpoint: "Endpoint", wanted: str | None, *, as_json: bool) -> "list[Finding]":
    # `pulumi-vllm --help` loads this module too; aiohttp takes 0.2 s to import.
    from pulumi_vllm.client import served_model
    from pulumi_vllm.client.checks import Checks

    model = await served_model.find_model(endpoint, wanted)
    say(f"{printable(model.name)} at {endpoint.url}")
    checks, findings = Checks(endpoint, model), []
    for name in checks.table:
        if as_json:
            say(f"{name} ...")
        findings.append(await checks.run(name))
        if not as_json:
            one = findings[-1]
            print(f"{one.outcome:20} {one.check:22} {one.seconds:6.1f} s  {one.sentence}", flush=True)
    return findings
