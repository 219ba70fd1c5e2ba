"""Programs under Pulumi's own mocks: what a consumer's unit tests do too."""

import asyncio
from pathlib import Path

import pulumi
import yaml
from pulumi.runtime.mocks import MockMonitor
from pulumi_vllm.component.mocks import Mocks

STACKS = Path(__file__).parents[2] / "stacks"


class Monitor(MockMonitor):
    """Keeps the requests too: what an engine sees of options, dependencies and secrets."""

    def __init__(self, mocks):
        super().__init__(mocks)
        self.requests = {}

    def RegisterResource(self, request):  # noqa: N802 - gRPC names it
        self.requests[request.name] = request
        return super().RegisterResource(request)


def run(program):
    """What a program registers, and the outputs that it returns, known."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    monitor, seen = Monitor(Mocks()), {}
    pulumi.runtime.set_mocks(monitor.mocks, preview=False, stack="unit", monitor=monitor)

    @pulumi.runtime.test
    def test():
        return pulumi.Output.all(**program()).apply(seen.update)

    test()
    return monitor, seen


def block(stack: str = "spheron-h200-2x-fp8") -> dict:
    return yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]["pulumi-vllm:server"]


def declare(server=None, secret_keys=None, **args):
    """The resources that a Server declares, and its outputs; an Output belongs to the loop of its program."""
    from pulumi_vllm import Server

    def program():
        if secret_keys:
            args["keys"] = pulumi.Output.secret(secret_keys)
        made = Server("llm", {"server": server or block(), **args})
        names = ("endpoint", "model", "ca_certificate", "api_keys", "usd_per_hour", "plan", "evidence")
        return {name: getattr(made, name) for name in names}

    monitor, seen = run(program)
    return monitor.mocks.made, seen
