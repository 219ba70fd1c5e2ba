"""The table that `pulumi-vllm recommend` prints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.recommendation import Fitting, Recommendation, Wish

_REMARKS = {"no": "computed, never started", "other flags": "rate measured with other flags"}
_OVERCOMMITTED = "overcommitted"
"""How the finding begins of a machine whose cache does not hold the requested requests with their full context."""


def show(found: "Recommendation", wish: "Wish") -> None:
    """Print the machines that fit, what they cost, and why the others do not."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.token_prices import UTILIZATIONS

    print(f"Prices: {found.prices}.")
    below = [f"{part:.0%}" for part in UTILIZATIONS[1:]]
    head = ("machine", "precision", "billing", "$/h", "$/730 h", "+ storage", "$/M out", *below, "input")
    head += ("streams", "full", "each", "KV tokens")
    width = max(9, *(len(_machine(row)) for row in found.fitting)) if found.fitting else 9
    layout = f"{{:{width}}} {{:9}} {{:10}} {{:>7}} {{:>10}} {{:>9}} {{:>8}}{' {:>6}' * len(below)} {{:>5}} "
    layout += "{:>10} {:>6} {:>9} {:>10}  "
    print(layout.format(*head))
    for row in found.fitting:
        million, price = row.usd_per_million_output_tokens, row.token_price
        usd = [None if million is None else million / part for part in UTILIZATIONS]
        print(
            layout.format(
                _machine(row),
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
        mix = wish.mix.tokens
        print(
            f"$/M out: USD per million output tokens of requests with {mix}, as many at once as requested or as the "
            f"cache holds, on a machine that is always busy; {', '.join(below)}: busy for that part of the time\n"
            "input: the part of the price that the prompts take\n"
            "streams: the measured levels of concurrency that this price is derived from. Between two levels, the rate "
            "is interpolated; above the highest, the rate of the highest is used\n"
            "full: number of requests with the full context that the KV cache holds at once\n"
            "each: tokens of the KV cache for each of the requested requests"
        )
        if any(_is_overcommitted(row) for row in found.fitting):
            print(
                "overcommitted: the requested requests fit at once if none is longer than `each`; else some wait"
            )
        _show_load(found, wish, mix)
    _show_findings(found)
    for refused in found.refused:
        print(
            f"no: {' '.join(filter(None, (refused.machine, refused.precision, refused.billing)))}: {refused.why}"
        )
    if not _takes_several(found.fitting):  # the separate servers are one machine each
        cheapest = found.fitting[0].usd_per_hour if found.fitting else None
        for one in found.separate:
            print(f"compared with {one.sentence(cheapest)}")
        _show_servers(found, cheapest)
    print(f"spot: {found.spot_then_and_now}")


def _takes_several(fitting: "Sequence[Fitting]") -> bool:
    """Whether the requests per second take several of the first machine."""
    price = fitting[0].token_price if fitting else ""
    return not isinstance(price, str) and (price.machines or 1) > 1


def _show_load(found: "Recommendation", wish: "Wish", mix: str) -> None:
    """Print how many machines of each row the requests per second need, and what they cost then."""
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.05 s to import.
    from pulumi_vllm.plan.token_prices import UNEVEN, percent

    if wish.mix.requests_per_s is None:
        return
    print(f"{wish.mix.load} with {mix}: what it takes (computed from measured rates)")
    layout = "  {:24} {:9} {:10} {:>8} {:>5} {:>8} {:>8}"
    print(layout.format("machine", "precision", "billing", "machines", "busy", "$/h", "$/M out"))
    unknown: dict[str, list[str]] = {}
    for row in found.fitting:
        name = f"{_machine(row)}{_divided(row)}"
        price = row.token_price
        if isinstance(price, str):
            unknown.setdefault(price, []).append(f"{name} {row.precision} {row.billing}")
        elif price.used is not None:
            cells = (name, row.precision, row.billing, price.machines, percent(price.used))
            usd, million = row.usd_per_hour_of_load, price.usd_per_million_output(price.used)
            crowded = f"  {UNEVEN}" if price.crowded else ""
            print(f"{layout.format(*cells, f'{usd:.2f}', f'{million:,.2f}')}{crowded}")
    for why, names in unknown.items():
        print(f"  unknown for {', '.join(names)}: {why}")


def _show_servers(found: "Recommendation", cheapest: float | None) -> None:
    """Print a server for each of four models as each would really run, and this machine beside them."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.pricing import HOURS_PER_MONTH
    from pulumi_vllm.plan.separate_servers import together

    print("a server for each of four models, on 1x H100 or on the cheapest machine that holds it (computed):")
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
            if finding.startswith(_OVERCOMMITTED):
                continue  # the table has its figures
            known = machines.setdefault(finding, [])
            name = f"{_machine(row)} {row.precision}{_divided(row)}"
            if name not in known:
                known.append(name)
    for finding, names in machines.items():
        print(f"note: {', '.join(names)}: {finding}")


def _machine(row: "Fitting") -> str:
    return f"{row.count}x {row.gpu}"


def _divided(row: "Fitting") -> str:
    return f" with {row.engines} engines" if row.engines > 1 else ""


def _is_overcommitted(row: "Fitting") -> bool:
    return any(one.startswith(_OVERCOMMITTED) for one in row.findings)


def _remark(row: "Fitting") -> str:
    words = [_REMARKS[row.measured]] if row.measured in _REMARKS else []
    words += ["4-bit quality unverified"] if any("(nvfp4-on-hopper)" in one for one in row.findings) else []
    words += [f"{row.engines} engines"] if row.engines > 1 else []
    if not isinstance(row.token_price, str) and row.token_price.unmeasured:
        words.append("price beyond what was measured")
    words += [_OVERCOMMITTED] if _is_overcommitted(row) else []
    if row.billing == "spot":
        words.append(f"serves {row.availability:.1%}, ${row.usd_per_serving_hour:.2f} per hour of serving")
    return "; ".join(words)
