"""Run programs under Pulumi's mocks, as users' unit tests do."""

import asyncio
from pathlib import Path

import pulumi
import yaml
from pulumi.runtime.mocks import MockMonitor
from pulumi_vllm.component.mocks import Mocks

STACKS = Path(__file__).parents[2] / "stacks"


class Monitor(MockMonitor):
    """Also keeps the requests, which contain options, dependencies and secrets."""

    def __init__(self, mocks):
        super().__init__(mocks)
        self.requests = {}

    def RegisterResource(self, request):  # noqa: N802 - gRPC names it
        self.requests[request.name] = request
        return super().RegisterResource(request)


def run(program):
    """Run a program; return the monitor and the values of the outputs that the program returns."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    monitor, outputs = Monitor(Mocks()), {}
    pulumi.runtime.set_mocks(monitor.mocks, preview=False, stack="unit", monitor=monitor)

    @pulumi.runtime.test
    def test():
        return pulumi.Output.all(**program()).apply(outputs.update)

    test()
    return monitor, outputs


def block(stack: str = "spheron-h200-2x-fp8") -> dict:
    """Return the block of a shipped stack, with the allow-list that only its user knows."""
    server = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]["pulumi-vllm:server"]
    return {**server, "access": {"allow": ["9.9.9.0/24"], **server["access"]}}


def declare(server=None, secret_keys=None, **args):
    """Declare a Server; return its resources and outputs. An Output belongs to the loop of its program."""
    from pulumi_vllm import Server

    def program():
        if secret_keys:
            args["keys"] = pulumi.Output.secret(secret_keys)
        made = Server("llm", {"server": server or block(), **args})
        names = ("endpoint", "model", "ca_certificate", "api_keys", "usd_per_hour", "plan", "evidence")
        return {name: getattr(made, name) for name in names}

    monitor, outputs = run(program)
    return monitor.mocks.made, outputs
