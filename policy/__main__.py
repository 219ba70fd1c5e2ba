"""The policy pack: `pulumi preview --policy-pack policy`. --policy-pack-config sets its limits."""

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
    """Schema of one limit of a policy, with its default."""
    return PolicyConfigSchema({name: {"type": kind, "default": NUMBERS[name], "minimum": 0}})


def limit(args: ResourceValidationArgs | StackValidationArgs, name: str) -> Any:
    """Return a limit as configured."""
    return args.get_config().get(name, NUMBERS[name])


def resource(
    name: str,
    description: str,
    kind: str,
    check: Callable[[Mapping[str, Any], ResourceValidationArgs], Iterable[str]],
    schema: PolicyConfigSchema | None = None,
) -> ResourceValidationPolicy:
    """Return a policy about resources of one type."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type == kind:
            for message in check(args.props, args):
                report(f"{args.name}: {message}")

    return ResourceValidationPolicy(name, description, validate, config_schema=schema)


def total_price(args: StackValidationArgs, report: ReportViolation) -> None:
    """Report a total price above the limit. A preview knows the price of a machine before it exists."""
    billed = [one.props for one in args.resources if one.resource_type in {rules.INSTANCE, rules.VOLUME}]
    prices = [props["usdPerHour"] for props in billed if "usdPerHour" in props]
    for message in rules.total_price(prices, limit(args, "maxUsdPerHour")):
        report(message)


def ttl(args: StackValidationArgs, report: ReportViolation) -> None:
    """Report a missing or late end date of a stack that has a machine."""
    if any(one.resource_type == rules.INSTANCE for one in args.resources):
        today = dt.datetime.now(tz=dt.UTC).date()
        for message in rules.ttl(args.stack_tags, today, int(limit(args, "maxDays"))):
            report(message)


POLICIES = [
    resource(
        "price-ceiling",
        "Every machine has a price ceiling within the pack's.",
        rules.INSTANCE,
        lambda props, args: rules.price_ceiling(props, limit(args, "maxUsdPerHour")),
        number("maxUsdPerHour"),
    ),
    StackValidationPolicy(
        "total-price",
        "The machines and volumes of a stack together stay within a price.",
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
        "Clients reach vLLM only through the gateway.",
        rules.FILES,
        lambda props, _: rules.engine_port(props["files"]),
    ),
    resource(
        "user-data",
        "A machine's user data contains no secret.",
        rules.INSTANCE,
        lambda props, _: rules.no_secret(props["cloudInit"]) if "cloudInit" in props else (),
    ),
    StackValidationPolicy(
        "ttl",
        "A stack with a machine has the tag ttl, its end date.",
        ttl,
        config_schema=number("maxDays", "integer"),
    ),
]

if __name__ == "__main__":
    # The engine reads the port from stdout, and not every language host starts Python with an unbuffered stdout.
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", buffering=0), write_through=True)
    PolicyPack("pulumi-vllm", POLICIES, enforcement_level=EnforcementLevel.MANDATORY)
