"""`pulumi-vllm recommend`: every machine that can do it, cheapest first, and why the others can't."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli import mix_options, recommend_table, recommend_write
from pulumi_vllm.cli.terminal import UsageError, print_json, say

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Catalogue
    from pulumi_vllm.plan.recommendation import Recommendation, Wish

NOTHING_FITS = 2
# With both at their limit, a machine serves e^-144 of the time, which can still be divided by.
_LONGEST_START_MIN, _MOST_INTERRUPTIONS = 1440, 144
_ANY_CONTEXT = 1024  # valid for every model, so that the other options are checked


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `recommend`."""
    text = "list the machines that can serve a model, cheapest first; exit 2 if there is none"
    parser = commands.add_parser("recommend", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", required=True, help="a model of the catalogue or of models/NAME.yaml")
    parser.add_argument("--context", required=True, help="tokens, for example 131072 or 128Ki")
    parser.add_argument(
        "--concurrency",
        type=int,
        required=True,
        help="requests served at the same time: about those per second times the seconds of an answer",
    )
    parser.add_argument("--precision", help="only this precision (default: every published one)")
    parser.add_argument(
        "--gpu", help="only this GPU, of the catalogue or of gpus/NAME.yaml (default: every one on offer)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="only machines with so many GPUs")
    parser.add_argument("--region", help="only offers in this region (default: any)")
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
    mix_options.add_to(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--offers", type=Path, metavar="FILE", help="offers from a saved answer of /api/gpu-offers"
    )
    where.add_argument(
        "--offline", action="store_true", help="use the dated price list and do not ask the cloud"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--write",
        metavar="STACK",
        help="write the cheapest machine into this stack file, for review; it keeps the stack's precision unless "
        "--precision names one",
    )
    parser.add_argument(
        "--lower-context", action="store_true", help="with --write: the stack's context may become shorter"
    )
    parser.set_defaults(run=_recommend)


def _recommend(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.cli import offers
    from pulumi_vllm.plan.recommendation import recommend

    wish, known = _wish(parsed)
    if parsed.write:
        recommend_write.check(parsed.write)
    found = recommend(wish, offers.find(parsed.offers, offline=parsed.offline), known)
    if parsed.json:
        print_json(_as_json(found))
    else:
        recommend_table.show(found, wish)
    if not found.fitting:
        say("no machine can serve this; the reasons are above")
        return NOTHING_FITS
    if parsed.write:
        recommend_write.write(parsed, wish, found.fitting)
    return 0


def _as_json(found: "Recommendation") -> dict[str, Any]:
    """The result with each row's price of tokens as `plan --json` has it."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan import token_prices

    document = dataclasses.asdict(found)
    for row, one in zip(document["fitting"], found.fitting, strict=True):
        row.update(token_prices.as_json(one.token_price))
    return document


def _wish(parsed: argparse.Namespace) -> "tuple[Wish, Catalogue]":
    """The capacity that the options ask for, and the catalogue with the files that they name.

    Raises:
        UsageError, ConfigError: with every error, if they are invalid.
    """
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan import quantities as units
    from pulumi_vllm.plan.errors import ConfigError
    from pulumi_vllm.plan.recommendation import Wish, check
    from pulumi_vllm.plan.token_prices import Mix

    known, of_names = _with_model(parsed.model)
    of_model = bool(of_names)
    known, gpu, of_gpu = _with_gpu(parsed.gpu, known)
    of_names += of_gpu
    errors, context = _errors_of_options(parsed), _ANY_CONTEXT
    of_mix = mix_options.errors(parsed)
    mix = Mix() if of_mix else mix_options.mix(parsed)
    errors += of_mix
    try:
        context = units.tokens(parsed.context)
    except ValueError as error:
        errors.append(f"--context: {error}")
    else:
        if longer := mix_options.too_long(mix, context):
            errors.append(f"{longer}, which is --context; write less, or a longer --context")
    wish = Wish(
        parsed.model,
        context,
        parsed.concurrency,
        parsed.precision,
        ("on-demand", "spot") if parsed.spot else ("on-demand",),
        parsed.max_usd_per_hour,
        parsed.full_length,
        parsed.interruptions_per_day,
        parsed.cold_start_minutes,
        gpu,
        parsed.count,
        parsed.region,
        mix,
    )
    if not of_model:
        try:
            check(wish, known)
        except ConfigError as error:
            of_names += error.errors
    if errors:
        raise UsageError("\n".join((*errors, *of_names)))
    if of_names:
        raise ConfigError(of_names)
    return wish, known


def _with_model(name: str) -> "tuple[Catalogue, tuple[str, ...]]":
    """The catalogue with the model of a file, if the name is that of one, and the errors in that file."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan import catalogue, own_models
    from pulumi_vllm.plan.errors import ConfigError

    try:
        return own_models.catalogue_with(name), ()
    except ConfigError as error:
        return catalogue.load(), tuple(one.replace("server.model:", "--model:") for one in error.errors)


def _with_gpu(name: str | None, known: "Catalogue") -> "tuple[Catalogue, str | None, tuple[str, ...]]":
    """The catalogue with the GPU of a file, if the name is that of one, the GPU's name, and the errors about it."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan import catalogue, own_gpus
    from pulumi_vllm.plan.card_names import card_suggestion
    from pulumi_vllm.plan.errors import ConfigError

    try:
        known, gpu = own_gpus.catalogue_with("--gpu", name, known)
    except ConfigError as error:
        return known, None, error.errors
    gpus = [one for one in known.gpus if one != catalogue.CPU]
    if gpu is None or gpu in gpus:
        return known, gpu, ()
    return known, None, (f"--gpu: {gpu!r} is not in the catalogue; {card_suggestion(gpu, gpus)}",)


def _errors_of_options(parsed: argparse.Namespace) -> list[str]:
    """The errors of the options that need no catalogue entry."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan import catalogue

    errors = []
    if parsed.count is not None and parsed.count not in catalogue.GPU_COUNTS:
        errors.append(
            f"--count: {parsed.count} is not offered; write {', '.join(map(str, catalogue.GPU_COUNTS))}"
        )
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
    return errors
