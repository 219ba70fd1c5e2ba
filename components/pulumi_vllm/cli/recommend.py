"""`pulumi-vllm recommend`: every machine that can do it, cheapest first, and why the others can't."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli import mix_options
from pulumi_vllm.cli.terminal import UsageError, print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_vllm.plan.catalogue import Catalogue
    from pulumi_vllm.plan.recommendation import Fitting, Recommendation, Wish

NOTHING_FITS = 2
# With both at their limit, a machine serves e^-144 of the time, which can still be divided by.
_LONGEST_START_MIN, _MOST_INTERRUPTIONS = 1440, 144
_ANY_CONTEXT = 1024  # valid for every model, so that the other options are checked
_REMARKS = {"no": "computed, never started", "other flags": "rate measured with other flags"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `recommend`."""
    text = "list the machines that can serve a model, cheapest first; exit 2 if there is none"
    parser = commands.add_parser("recommend", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", required=True, help="a model of the catalogue or of models/NAME.yaml")
    parser.add_argument("--context", required=True, help="tokens, for example 131072 or 128Ki")
    parser.add_argument("--concurrency", type=int, required=True, help="requests served at the same time")
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
    found = recommend(wish, offers.find(parsed.offers, offline=parsed.offline), known)
    if parsed.json:
        print_json(_as_json(found))
    else:
        _show(found, wish)
    if not found.fitting:
        say("no machine can serve this; the reasons are above")
        return NOTHING_FITS
    if parsed.write:
        _write(parsed, wish, found.fitting)
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


def _show(found: "Recommendation", wish: "Wish") -> None:
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.token_prices import UTILIZATIONS

    print(f"Prices: {found.prices}.")
    below = [f"{part:.0%}" for part in UTILIZATIONS[1:]]
    head = ("machine", "precision", "billing", "$/h", "$/730 h", "+ storage", "$/M out", *below, "input")
    head += ("streams", "full", "each", "KV tokens")
    width = max(9, *(len(f"{row.count}x {row.gpu}") for row in found.fitting)) if found.fitting else 9
    layout = f"{{:{width}}} {{:9}} {{:10}} {{:>7}} {{:>10}} {{:>9}} {{:>8}}{' {:>6}' * len(below)} {{:>5}} "
    layout += "{:>10} {:>6} {:>9} {:>10}  "
    print(layout.format(*head))
    for row in found.fitting:
        million, price = row.usd_per_million_output_tokens, row.token_price
        usd = [None if million is None else million / part for part in UTILIZATIONS]
        print(
            layout.format(
                f"{row.count}x {row.gpu}",
                row.precision,
                row.billing,
                f"{row.usd_per_hour:.2f}",
                f"{row.usd_per_month:,.2f}",
                f"{row.storage_usd_per_month:.2f}",
                *("-" if one is None else f"{one:,.2f}" for one in usd),
                "-" if isinstance(price, str) else f"{price.input_share:.0%}",
                " to ".join(map(str, row.rate_from_streams)) or "-",
                f"{row.full_requests:.1f}",
                f"{row.tokens_per_request:,}",
                f"{row.kv_cache_tokens:,}",
            )
            + _remark(row)
        )
    if found.fitting:
        mix = f"{wish.mix.input:,} tokens in and {wish.mix.output:,} out"
        print(
            f"$/M out: USD per million output tokens of requests with {mix}, as many at once as requested or as the "
            f"cache holds, on a machine that is always busy; {', '.join(below)}: busy for that part of the time\n"
            "input: the part of the price that the prompts take\n"
            "streams: the measured levels of concurrency that this price is derived from. Between two levels, the rate "
            "is interpolated; above the highest, the rate of the highest is used\n"
            "full: number of requests with the full context that the KV cache holds at once\n"
            "each: tokens of the KV cache for each of the requested requests"
        )
        _show_load(found, wish, mix)
    _show_findings(found)
    for refused in found.refused:
        print(
            f"no: {' '.join(filter(None, (refused.machine, refused.precision, refused.billing)))}: {refused.why}"
        )
    cheapest = found.fitting[0].usd_per_hour if found.fitting else None
    for one in found.separate:
        print(f"compared with {one.sentence(cheapest)}")
    _show_servers(found, cheapest)
    print(f"spot: {found.spot_then_and_now}")


def _show_load(found: "Recommendation", wish: "Wish", mix: str) -> None:
    """Print how many machines of each row the requests per second need, and what they cost then."""
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.05 s to import.
    from pulumi_vllm.plan.token_prices import UNEVEN

    if wish.mix.requests_per_s is None:
        return
    print(f"{wish.mix.requests_per_s:g} requests/s with {mix} need (computed from measured rates):")
    layout = "  {:24} {:9} {:10} {:>8} {:>5} {:>8} {:>8}"
    print(layout.format("machine", "precision", "billing", "machines", "busy", "$/h", "$/M out"))
    unknown: dict[str, list[str]] = {}
    for row in found.fitting:
        name = f"{row.count}x {row.gpu}{f' with {row.engines} engines' if row.engines > 1 else ''}"
        price = row.token_price
        if isinstance(price, str):
            unknown.setdefault(price, []).append(f"{name} {row.precision} {row.billing}")
        elif price.used is not None:
            cells = (name, row.precision, row.billing, price.machines, f"{price.used:.0%}")
            usd, million = row.usd_per_hour_of_load, price.usd_per_million_output(price.used)
            crowded = f"  {UNEVEN}" if price.crowded else ""
            print(f"{layout.format(*cells, f'{usd:.2f}', f'{million:,.2f}')}{crowded}")
    for why, names in unknown.items():
        print(f"  unknown for {', '.join(names)}: {why}")


def _show_servers(found: "Recommendation", cheapest: float | None) -> None:
    """Print the tutorial's servers as each would really run, and this machine beside them."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.pricing import HOURS_PER_MONTH
    from pulumi_vllm.plan.separate_servers import together

    print("the tutorial's servers, each on 1x H100 or on the cheapest machine that holds it (computed):")
    layout = "  {:30} {:9} {:17} {:>7} {:>9} {:>10} {:>6}"
    print(layout.format("model", "precision", "machine", "$/h", "context", "KV tokens", "full"))
    for one in found.separate_servers:
        if one.machine is None or one.kv_cache_tokens is None:
            print(f"  {one.model:30} no machine holds a request of {one.context:,} tokens")
            continue
        usd = "-" if one.usd_per_hour is None else f"{one.usd_per_hour:.2f}"
        cells = (one.model, one.precision, one.machine, usd, f"{one.context:,}", f"{one.kv_cache_tokens:,}")
        print(layout.format(*cells, f"{one.full_requests:.1f}"))
    all_usd = together(found.separate_servers)
    if all_usd is None:
        return
    line = f"  together ${all_usd:.2f}/h, ${all_usd * HOURS_PER_MONTH:,.2f} per month"
    if cheapest is not None:
        saved = 1 - cheapest / all_usd
        word = "saves" if saved >= 0 else "costs more by"
        line += f"; the first machine above at ${cheapest:.2f}/h {word} {abs(saved):.0%}"
    print(line)


def _show_findings(found: "Recommendation") -> None:
    """Print each finding once, with the machines that have it."""
    machines: dict[str, list[str]] = {}
    for row in found.fitting:
        for finding in row.findings:
            known = machines.setdefault(finding, [])
            name = f"{row.count}x {row.gpu} {row.precision}"
            name += f" with {row.engines} engines" if row.engines > 1 else ""
            if name not in known:
                known.append(name)
    for finding, names in machines.items():
        print(f"note: {', '.join(names)}: {finding}")


def _remark(row: "Fitting") -> str:
    words = [_REMARKS[row.measured]] if row.measured in _REMARKS else []
    words += ["4-bit quality unverified"] if any("(nvfp4-on-hopper)" in one for one in row.findings) else []
    words += [f"{row.engines} engines"] if row.engines > 1 else []
    if not isinstance(row.token_price, str) and row.token_price.unmeasured:
        words.append("price beyond what was measured")
    words += ["overcommitted"] if any(one.startswith("overcommitted") for one in row.findings) else []
    if row.billing == "spot":
        words.append(f"serves {row.availability:.1%}, ${row.usd_per_serving_hour:.2f} per hour of serving")
    return "; ".join(words)


def _write(parsed: argparse.Namespace, wish: "Wish", rows: "Sequence[Fitting]") -> None:
    """Change the stack file, if the result is a stack that plans."""
    # Only --write needs the whole plan package.
    from pulumi_vllm.cli import stack_check, stack_file
    from pulumi_vllm.plan import ConfigError, Deployment, own_machine, plan
    from pulumi_vllm.plan.stack_name import contradictions

    path = stack_file.find(parsed.write)
    text, before = path.read_text(), stack_file.block_of(path)
    if own_machine.is_declared_in(before):
        raise ConfigError(
            (
                "server.machine.cloud: is none, and --write chooses a machine to rent; change gpu and count by hand",
            )
        )
    row = _row_for(before, wish, rows, lower_context=parsed.lower_context)
    values: dict[str, str | int | float | None] = {
        "model": wish.model,
        "precision": row.precision,
        "context": wish.context,
        "profile": None,
        "concurrency": wish.concurrency,
        "machine.gpu": parsed.gpu or row.gpu,  # the path of a file, if one was given
        "machine.count": row.count,
        "machine.engines": row.engines if row.engines > 1 or _value(before, "machine.engines") else None,
        "machine.billing": row.billing,
    }
    if wish.max_usd_per_hour is not None:
        values["machine.max_usd_per_hour"] = wish.max_usd_per_hour
    if row.billing != "spot":
        values["machine.fallback"] = None
    changed = stack_file.change(text, values)
    block = stack_file.block_of(path, changed)

    def decide(deployment: Deployment) -> None:
        errors = contradictions(path.name.removeprefix("Pulumi.").removesuffix(".yaml"), block)
        if row.usd_per_hour > deployment.machine.ceiling:
            ceiling = deployment.machine.ceiling
            problem = f"server.machine.max_usd_per_hour: {ceiling:g} is below ${row.usd_per_hour:.2f}/h"
            errors = (*errors, f"{problem}; set --max-usd-per-hour")
        if errors:
            raise ConfigError(errors)
        plan(deployment)

    stack_check.checked(path, block, decide)
    _say_what_the_row_leaves_out(path, before, row)
    if block == before:
        say(f"{path}: needs no change")
        return
    path.write_text(changed)
    for dotted, value in values.items():
        old = _value(before, dotted)
        if old != value:
            say(
                f"{path}: {dotted}: {'unset' if old is None else old} -> {'unset' if value is None else value}"
            )
    say(f"{path}: written; check that its comments still apply, then run `pulumi-vllm plan {path}`")


def _say_what_the_row_leaves_out(path: Path, before: "Mapping[str, Any]", row: "Fitting") -> None:
    """Say how the stack that is written differs from the row that was printed."""
    version = _value(before, "engine.version")
    if version not in {None, row.engine}:
        say(
            f"{path}: engine.version stays {version}, and the figures above are those of vLLM {row.engine}; "
            "`pulumi-vllm plan` has this stack's"
        )
    price = row.token_price
    if not isinstance(price, str) and (price.machines or 1) > 1:
        wanted = f"{price.mix.requests_per_s:g} requests/s"
        say(f"{path}: {wanted} need {price.machines:,} such machines, and the stack has one")


def _row_for(
    before: "Mapping[str, Any]", wish: "Wish", rows: "Sequence[Fitting]", *, lower_context: bool
) -> "Fitting":
    """The cheapest row that lowers neither precision nor context of the stack, unless an option says so."""
    # Only --write needs these.
    from pulumi_vllm.plan import ConfigError, own_models, quantities

    model = own_models.catalogue_with(wish.model).models[wish.model]
    kept = before.get("precision") or next(iter(model.precisions))
    errors = []
    same = [row for row in rows if wish.precision is not None or row.precision == kept]
    if not same and before.get("model") == wish.model:
        others = ", ".join(dict.fromkeys(row.precision for row in rows))
        errors.append(
            f"server.precision: no machine can serve this in {kept}; add --precision {others} to change it"
        )
    try:
        context = quantities.tokens(before.get("context", 0))
    except ValueError:
        context = 0
    if context > wish.context and not lower_context:
        errors.append(
            f"server.context: --context {wish.context} is below the stack's {context}; add --lower-context to change it"
        )
    if errors:
        raise ConfigError(tuple(errors))
    return (same or list(rows))[0]


def _value(block: "Mapping[str, Any]", dotted: str) -> Any:
    at: Any = block
    for key in dotted.split("."):
        at = at.get(key) if isinstance(at, dict) else None
    return at
