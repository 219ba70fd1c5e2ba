"""`pulumi-vllm recommend`: every machine that can do it, cheapest first, and why the others can't."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm.cli.terminal import USAGE, say

if TYPE_CHECKING:
    from pulumi_vllm.plan.recommendation import Fitting, Recommendation, Wish

NOTHING_FITS = 2
# With both at their limit, a machine serves e^-144 of the time, which can still be divided by.
_LONGEST_START_MIN, _MOST_INTERRUPTIONS = 1440, 144
_REMARKS = {"no": "computed, never started", "other flags": "rate measured with other flags"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `recommend`."""
    text = "list the machines that can serve a model, cheapest first; exit 2 if there is none"
    parser = commands.add_parser("recommend", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", required=True, help="catalogue name, for example mistral-small-4")
    parser.add_argument("--context", required=True, help="tokens, for example 131072 or 128Ki")
    parser.add_argument("--concurrency", type=int, required=True, help="requests served at the same time")
    parser.add_argument("--precision", help="only this precision (default: every published one)")
    parser.add_argument(
        "--full-length",
        action="store_true",
        help="all requests may have the full context at once, and none may wait",
    )
    parser.add_argument("--spot", action="store_true", help="include spot machines")
    parser.add_argument("--max-usd-per-hour", type=float, metavar="N", help="price ceiling of the machine")
    parser.add_argument(
        "--interruptions-per-day",
        type=float,
        metavar="N",
        help="expected interruptions of a spot machine (default: an assumption)",
    )
    parser.add_argument(
        "--cold-start-minutes",
        type=float,
        metavar="N",
        help="time until a new machine serves (default: computed)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--offers", type=Path, metavar="FILE", help="offers from a saved answer of /api/gpu-offers"
    )
    where.add_argument(
        "--offline", action="store_true", help="use the dated price list and do not ask the cloud"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--write", metavar="STACK", help="write the cheapest machine into this stack file, for review"
    )
    parser.set_defaults(run=_recommend)


def _recommend(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.cli import offers
    from pulumi_vllm.plan.recommendation import recommend

    wish = _wish(parsed)
    if wish is None:
        return USAGE
    found = recommend(wish, offers.find(parsed.offers, offline=parsed.offline))
    if parsed.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _show(found)
    if not found.fitting:
        say("no machine can serve this; the reasons are above")
        return NOTHING_FITS
    if parsed.write:
        _write(parsed.write, wish, found.fitting[0])
    return 0


def _wish(parsed: argparse.Namespace) -> "Wish | None":
    """The capacity that the options ask for; None, after every error is reported, if they are invalid."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan import quantities as units
    from pulumi_vllm.plan.recommendation import Wish

    errors, context = [], 1
    try:
        context = units.tokens(parsed.context)
    except ValueError as error:
        errors.append(f"--context: {error}")
    usd, minutes, days = parsed.max_usd_per_hour, parsed.cold_start_minutes, parsed.interruptions_per_day
    for name, wanted, right in (
        ("--max-usd-per-hour", "more than 0", usd is None or 0 < usd < float("inf")),
        (
            "--cold-start-minutes",
            f"more than 0 and at most {_LONGEST_START_MIN}, which is a day",
            minutes is None or 0 < minutes <= _LONGEST_START_MIN,
        ),
        (
            "--interruptions-per-day",
            f"0 to {_MOST_INTERRUPTIONS}, which is one every 10 min",
            days is None or 0 <= days <= _MOST_INTERRUPTIONS,
        ),
    ):
        if not right:
            given = getattr(parsed, name.removeprefix("--").replace("-", "_"))
            errors.append(f"{name}: {given:g} is out of range; write {wanted}")
    for message in errors:
        say(message)
    if errors:
        return None
    return Wish(
        parsed.model,
        context,
        parsed.concurrency,
        parsed.precision,
        ("on-demand", "spot") if parsed.spot else ("on-demand",),
        parsed.max_usd_per_hour,
        parsed.full_length,
        days,
        parsed.cold_start_minutes,
    )


def _show(found: "Recommendation") -> None:
    print(f"Prices: {found.prices}.")
    head = ("machine", "precision", "billing", "$/h", "$/730 h", "+ storage", "$/M out", "streams", "full")
    print("{:9} {:9} {:10} {:>7} {:>10} {:>9} {:>8} {:>10} {:>6} {:>10}  ".format(*head, "KV tokens"))
    for row in found.fitting:
        million = row.usd_per_million_output_tokens
        streams = " to ".join(map(str, row.rate_from_streams)) or "-"
        print(
            f"{f'{row.count}x {row.gpu}':9} {row.precision:9} {row.billing:10} {row.usd_per_hour:7.2f} "
            f"{row.usd_per_month:10,.2f} {row.storage_usd_per_month:9.2f} "
            f"{'-' if million is None else f'{million:.2f}':>8} {streams:>10} {row.full_requests:6.1f} "
            f"{row.kv_cache_tokens:10,}  {_remark(row)}"
        )
    if found.fitting:
        print(
            "full: number of requests with the full context that the KV cache holds at once\n"
            "$/M out: USD per million output tokens (512 in, 256 out) at the requested concurrency, always busy\n"
            "streams: the measured levels of concurrency that this price is derived from. Between two levels, the rate "
            "is interpolated; above the highest, the rate of the highest is used"
        )
    for refused in found.refused:
        print(
            f"no: {' '.join(filter(None, (refused.machine, refused.precision, refused.billing)))}: {refused.why}"
        )
    cheapest = found.fitting[0].usd_per_hour if found.fitting else None
    for one in found.separate:
        print(f"compared with {one.sentence(cheapest)}")


def _remark(row: "Fitting") -> str:
    words = [_REMARKS[row.measured]] if row.measured in _REMARKS else []
    if row.billing == "spot":
        words.append(f"serves {row.availability:.1%}, ${row.usd_per_serving_hour:.2f} per hour of serving")
    return "; ".join(words)


def _write(stack: str, wish: "Wish", row: "Fitting") -> None:
    """Change the stack file, if the result is a stack that plans."""
    # Only --write needs the whole plan package.
    from pulumi_vllm.cli import stack_file
    from pulumi_vllm.plan import ConfigError, Deployment, plan
    from pulumi_vllm.plan.stack_name import contradictions

    path = stack_file.find(stack)
    text, before = path.read_text(), stack_file.block_of(path)
    values: dict[str, str | int | float | None] = {
        "model": wish.model,
        "precision": row.precision,
        "context": wish.context,
        "profile": None,
        "concurrency": wish.concurrency,
        "machine.gpu": row.gpu,
        "machine.count": row.count,
        "machine.billing": row.billing,
    }
    if wish.max_usd_per_hour is not None:
        values["machine.max_usd_per_hour"] = wish.max_usd_per_hour
    if row.billing != "spot":
        values["machine.fallback"] = None
    changed = stack_file.change(text, values)
    block = stack_file.block_of(path, changed)
    deployment = Deployment.parse(block)
    errors = contradictions(path.name.removeprefix("Pulumi.").removesuffix(".yaml"), block)
    if row.usd_per_hour > deployment.machine.max_usd_per_hour:
        ceiling = deployment.machine.max_usd_per_hour
        problem = f"server.machine.max_usd_per_hour: {ceiling:g} is below ${row.usd_per_hour:.2f}/h"
        errors = (*errors, f"{problem}; set --max-usd-per-hour")
    if errors:
        raise ConfigError(errors)
    plan(deployment)
    if block == before:
        say(f"{path}: needs no change")
        return
    path.write_text(changed)
    say(f"{path}: written; check that its comments still apply, then run `pulumi-vllm plan {path}`")
