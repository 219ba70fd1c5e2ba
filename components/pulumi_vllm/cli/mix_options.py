"""The options that name a mix of prompts and answers, which `plan` and `recommend` share."""

import argparse
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli.terminal import UsageError

if TYPE_CHECKING:
    from pulumi_vllm.plan.token_prices import Mix

_NAMES = {"input": "--input", "output": "--output", "requests_per_s": "--requests-per-second"}

_FEWEST_PER_S, _MOST_PER_S = 0.000001, 1_000_000
"""One request in eleven days, and more than any service has. Beyond both a price is no figure that can be read."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--input", type=_tokens, metavar="N", help="tokens of your prompts, for the price (default: 512)"
    )
    parser.add_argument(
        "--output", type=_tokens, metavar="N", help="tokens of your answers, for the price (default: 256)"
    )
    parser.add_argument(
        "--requests-per-second", type=float, metavar="N", help="your load, for the price at its utilization"
    )


def _tokens(text: str) -> int:
    """Tokens as a stack file has them. Whether there are any is for `errors`."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan import quantities

    try:
        return int(text)
    except ValueError:
        pass
    try:
        return quantities.tokens(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def read(parsed: argparse.Namespace) -> "Mix":
    """The mix that the options name; UsageError with every error if they are invalid."""
    if found := errors(parsed):
        raise UsageError("\n".join(found))
    return mix(parsed)


def errors(parsed: argparse.Namespace) -> list[str]:
    """The errors of the options, each with its remedy."""
    found = [
        f"{_NAMES[key]}: {value} is out of range; write more than 0"
        for key, value in _given(parsed).items()
        if key != "requests_per_s" and value < 1
    ]
    wanted = parsed.requests_per_second
    if wanted is not None and not _FEWEST_PER_S <= wanted <= _MOST_PER_S:
        found.append(
            f"--requests-per-second: {wanted:g} is out of range; write {_FEWEST_PER_S:f} to {_MOST_PER_S:,}"
        )
    return found


def mix(parsed: argparse.Namespace) -> "Mix":
    """The mix that the options name, in which `errors` found none."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan.token_prices import Mix

    return Mix(**_given(parsed))


def too_long(wanted: "Mix", context: int) -> str | None:
    """The error of requests that are longer than the context; None for the measured load, which nobody asked for."""
    if wanted.input + wanted.output <= context or wanted == type(wanted)():
        return None
    return f"--input {wanted.input} and --output {wanted.output}: together above {context:,} tokens"


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by the names of Mix."""
    values = (parsed.input, parsed.output, parsed.requests_per_second)
    return {key: value for key, value in zip(_NAMES, values, strict=True) if value is not None}
