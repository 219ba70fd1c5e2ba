"""The policy pack: `pulumi preview --policy-pack policy`. Its numbers can be set with --policy-pack-config."""

import datetime as dt
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import rules
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

NUMBERS = {"maxUsdPerHour": 50.0, "maxDays": 30}


def number(name: str, kind: str = "number") -> PolicyConfigSchema:
    """One number of a policy, with its default."""
    return PolicyConfigSchema({name: {"type": kind, "default": NUMBERS[name], "minimum": 0}})


def asked(args: ResourceValidationArgs | StackValidationArgs, name: str) -> Any:
    """A number as configured."""
    return args.get_config().get(name, NUMBERS[name])


def resource(
    name: str,
    description: str,
    kind: str,
    check: Callable[[Mapping[str, Any], ResourceValidationArgs], Iterable[str]],
    schema: PolicyConfigSchema | None = None,
) -> ResourceValidationPolicy:
    """A policy about resources of one type."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type == kind:
            for sentence in check(args.props, args):
                report(f"{args.name}: {sentence}")

    return ResourceValidationPolicy(name, description, validate, config_schema=schema)


def total_price(args: StackValidationArgs, report: ReportViolation) -> None:
    """The sum of what is known; a preview knows the price of a machine that is not made yet."""
    billed = [one.props for one in args.resources if one.resource_type in {rules.INSTANCE, rules.VOLUME}]
    prices = [props["usdPerHour"] for props in billed if "usdPerHour" in props]
    for sentence in rules.total_price(prices, asked(args, "maxUsdPerHour")):
        report(sentence)


def ttl(args: StackValidationArgs, report: ReportViolation) -> None:
    """Only a machine makes a stack that should end."""
    if any(one.resource_type == rules.INSTANCE for one in args.resources):
        today = dt.datetime.now(tz=dt.UTC).date()
        for sentence in rules.ttl(args.stack_tags, today, int(asked(args, "maxDays"))):
            report(sentence)


POLICIES = [
    resource(
        "price-ceiling",
        "Every machine has a price ceiling, within the pack's.",
        rules.INSTANCE,
        lambda props, args: rules.price_ceiling(props, asked(args, "maxUsdPerHour")),
        number("maxUsdPerHour"),
    ),
    StackValidationPolicy(
        "total-price",
        "Machines and disks of a stack stay within a price together.",
        total_price,
        config_schema=number("maxUsdPerHour"),
    ),
    resource(
        "volume-kept",
        "A volume is kept when the stack is destroyed.",
        rules.VOLUME,
        lambda props, _: rules.volume_kept(props),
    ),
    resource(
        "pinned-revision",
        "Weights are pinned to a commit.",
        rules.WEIGHTS,
        lambda props, _: rules.pinned_revision(props),
    ),
    resource(
        "engine-port",
        "vLLM is reached through the gateway only.",
        rules.FILES,
        lambda props, _: rules.engine_port(props["files"]),
    ),
    resource(
        "user-data",
        "No secret is in a machine's user data.",
        rules.INSTANCE,
        lambda props, _: rules.no_secret(props["cloudInit"]) if "cloudInit" in props else (),
    ),
    StackValidationPolicy(
        "ttl",
        "A stack with a machine has a tag ttl, a date.",
        ttl,
        config_schema=number("maxDays", "integer"),
    ),
]

if __name__ == "__main__":
    # The engine waits for the port on our stdout, and not every language host starts Python without a buffer there.
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", buffering=0), write_through=True)
    PolicyPack("pulumi-vllm", POLICIES, enforcement_level=EnforcementLevel.MANDATORY)
