"""`pulumi-vllm smoke`: whether a running stack does what its clients need; exit 1 if something fails."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from pulumi_vllm.cli import target
from pulumi_vllm.cli.say import TROUBLE, USAGE, say

if TYPE_CHECKING:
    from pulumi_vllm.client.checks import Finding
    from pulumi_vllm.client.endpoint import Endpoint


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `smoke`."""
    text = "ask a running stack what its clients will ask; exit 1 if something fails"
    smoke = commands.add_parser(
        "smoke",
        help=text,
        description=f"{text.capitalize()}: chat, stream, reasoning_effort, a tool call, structured output, "
        "an image, a request as long as allowed. Each is pass, fail, or not for this engine.",
    )
    target.add_arguments(smoke)
    smoke.set_defaults(run=_smoke)


def _smoke(parsed: argparse.Namespace) -> int:
    import asyncio

    from pulumi_vllm.client.errors import UsageError

    try:
        endpoint = target.find(parsed)
    except UsageError as error:
        say(f"smoke: {error}")
        return USAGE
    findings = asyncio.run(_all(endpoint, parsed.model, quiet=parsed.json))
    failed = [one.check for one in findings if one.outcome == "fail"]
    if parsed.json:
        checks = [dataclasses.asdict(one) for one in findings]
        print(json.dumps({"endpoint": endpoint.url, "passed": not failed, "checks": checks}, indent=2))
    elif failed:
        say(f"{len(failed)} of {len(findings)} failed: {', '.join(failed)}")
    return TROUBLE if failed else 0


async def _all(endpoint: "Endpoint", model: str | None, *, quiet: bool) -> "list[Finding]":
    from pulumi_vllm.client import served
    from pulumi_vllm.client.checks import Checks
    from pulumi_vllm.client.errors import printable

    found = await served.look(endpoint, model)
    say(f"{printable(found.name)} at {endpoint.url}")
    checks, findings = Checks(endpoint, found), []
    for name in checks.table:
        if quiet:
            say(f"{name} ...")
        findings.append(await checks.run(name))
        if not quiet:
            one = findings[-1]
            print(f"{one.outcome:20} {one.check:22} {one.seconds:6.1f} s  {one.sentence}", flush=True)
    return findings
