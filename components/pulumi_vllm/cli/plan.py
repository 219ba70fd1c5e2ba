"""`pulumi-vllm plan`: what a stack would run, whether it fits, and why. It needs no network."""

import argparse
import gc
import os
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli import mix_options
from pulumi_vllm.cli.terminal import TROUBLE, UsageError, coloured, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan import Plan
    from pulumi_vllm.plan.token_prices import Mix

# The figures of the summary by which two stacks are compared, each with its format.
_COMPARED = {
    "machine": "",
    "billing": "",
    "model": "",
    "precision": "",
    "engine": "",
    "weights_gib_per_gpu": ",.2f",
    "kv_cache_gib_per_gpu": ",.2f",
    "kv_cache_tokens": ",",
    "full_length_requests": ",.2f",
    "disk_gib": ",",
    "usd_per_hour": ",.2f",
    "usd_per_month": ",.2f",
    "storage_usd_per_month": ",.2f",
    "scheduled_hours_per_month": ",.1f",
    "scheduled_usd_per_month": ",.2f",
    "usd_per_million_output_tokens": ",.2f",
    "usd_per_million_load": "",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    text = "show what a stack would run, whether it fits, and why; or compare two stacks; needs no network"
    plan = commands.add_parser("plan", help=text, description=f"{text.capitalize()}.")
    plan.add_argument(
        "stack",
        metavar="STACK",
        nargs="+",
        help="one stack or two: a name in the folder stacks/, or a file such as stacks/Pulumi.local.yaml",
    )
    plan.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the stack (of both stacks), for example machine.count=1; may be repeated",
    )
    mix_options.add_to(plan)
    plan.add_argument(
        "--json",
        action="store_true",
        help="print the whole plan as JSON; for two stacks an object with a list",
    )
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    # The process ends at once. Garbage collection and pydantic's plugins would take a tenth of its time.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    mix = mix_options.read(parsed)
    if len(parsed.stack) == 1 and not parsed.json:
        _show(_decide(parsed.stack[0], parsed.set), mix)
        return 0
    if len(parsed.stack) == 1:
        found = _summary(parsed.stack[0], parsed.set, mix)
        print_json(found)
        return TROUBLE if "refused" in found else 0
    if len(parsed.stack) > 2:  # noqa: PLR2004 - two fit on a line
        raise UsageError("more than two stacks; compare two at a time")
    return _compare(parsed.stack, parsed.set, mix, as_json=parsed.json)


def _decide(stack: str, changes: list[str]) -> "Plan":
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    # `_plan` disables pydantic's plugins before this import.
    from pulumi_vllm.cli import stack_check, stack_file
    from pulumi_vllm.plan import plan

    path = stack_file.find(stack)
    block = stack_file.block_of(path)
    for dotted in changes:
        stack_file.put(block, dotted)
    return stack_check.checked(path, block, plan)


def _price(decided: "Plan", mix: "Mix") -> dict[str, Any]:
    """The price of a mix as JSON has it; UsageError if its requests are longer than the stack's context."""
    # `pulumi-vllm --help` loads this module too.
    from pulumi_vllm.plan import token_prices

    if error := mix_options.too_long(mix, decided.deployment.context):
        raise UsageError(f"{error}, the stack's context; write less, or add --set context=...")
    return token_prices.as_json(token_prices.token_price(decided, mix))


def _summary(stack: str, changes: list[str], mix: "Mix") -> dict[str, Any]:
    """The plan as JSON, or why there is none; `fits` is None if nobody knows, as for a wrong stack file."""
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.05 s to import.
    from pulumi_vllm.plan.errors import ConfigError, DoesNotFit, PlanError

    try:
        return _with_price(_decide(stack, changes), mix)
    except PlanError as error:
        fits = None if isinstance(error, ConfigError) else not isinstance(error, DoesNotFit)
        return {"fits": fits, "refused": list(error.errors)}


def _with_price(decided: "Plan", mix: "Mix") -> dict[str, Any]:
    """The plan as JSON. Its price per million tokens is that of the mix, where one is asked for."""
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.05 s to import.
    from pulumi_vllm.plan import explain

    found = explain.summary(decided) | _price(decided, mix)
    if not mix.is_measured or mix.requests_per_s is not None:
        usd, label = _own(found, mix)
        found |= {"usd_per_million_output_tokens": usd, "usd_per_million_load": f"{_busy(mix)}, {mix.tokens}"}
        found["labels"] |= dict.fromkeys(("usd_per_million_output_tokens", "usd_per_million_load"), label)
    return found


def _show(decided: "Plan", mix: "Mix") -> None:
    # `pulumi-vllm --help` loads this module too; the catalogue takes 0.05 s to import.
    from pulumi_vllm.plan import explain, memory_lines
    from pulumi_vllm.plan.alternatives import cheaper_alternative

    found = _with_price(decided, mix)
    labels = found["labels"]
    head = f"{found['machine']} {found['billing']}, {found['model']} {found['precision']}"
    print(f"{head}, vLLM {found['engine']}")
    price = found["token_price"]
    if price is not None and (price["machines"] or 0) > 1:
        usd = price["machines"] * found["usd_per_hour"]
        needed = (
            f"{price['machines']:,} such machines, ${usd:,.2f} per hour, for {mix.load} with {mix.tokens}"
        )
        print(coloured(f"too small: it takes {needed} (computed); a stack has one machine", "33"))
    if decided.memory is not None:
        print(memory_lines.drawing(decided.memory, coloured))
    figures = [
        name
        for name in _COMPARED
        if name in explain.MEMORY_FIGURES
        or ("usd" in name and name in found and name != "usd_per_million_load")  # it is in the price's label
    ]
    for name in ("fits", *figures):
        value = found[name]
        missing = "not known" if name == "fits" else "-"
        written = (
            "yes" if value is True else missing if value is None else format(value, _COMPARED.get(name, ""))
        )
        label = labels[name] if name == "fits" or "usd" in name else labels[name].partition(":")[0]
        print(f"{name}: {written} ({label})")
    print(f"disk_gib: {found['disk_gib']} (computed)")
    for title in ("budget", "because"):
        print(f"{title}:")
        for line in found[title]:
            print(f"  {_coloured_by_severity(line)}")
    _show_price(found)
    print(f"flags ({labels['flags']}):")
    for line in _words(found["flags"]):
        print(f"  {line}")
    print("environment:")
    for name, value in found["environment"].items():
        print(f"  {name}={value}")
    message = cheaper_alternative(decided) if decided.memory is not None else None
    if message:
        print(f"cheaper:\n  {message}")


def _own(price: dict[str, Any], mix: "Mix") -> tuple[float | None, str]:
    """The price of the asked requests per million output tokens, and its label."""
    found = price["token_price"]
    if found is None:
        return None, f"unverified: {price['token_price_unknown']}"
    asked, million = mix.requests_per_s, found["usd_per_million_output_tokens"]
    usd = million["100%"] if asked is None else found["usd_per_million_output_tokens_asked"]
    return (
        usd,
        f"computed: of {mix.tokens}, {_busy(mix)}; see the token price below",
    )


def _busy(mix: "Mix") -> str:
    return mix.load or "always busy"


def _coloured_by_severity(line: str) -> str:
    word = line.partition(" ")[0]
    return {"Error": coloured(line, "31"), "Warning": coloured(line, "33")}.get(word, line)


def _words(flags: list[str]) -> list[str]:
    """A line per argument, quoted for a shell."""
    import shlex  # only this output needs it

    lines: list[str] = []
    for word in flags:
        if word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines


def _compare(stacks: list[str], changes: list[str], mix: "Mix", *, as_json: bool) -> int:
    """Print two columns and mark what differs. A stack that is refused has its errors below."""
    found = [{"stack": stack, **_summary(stack, changes, mix)} for stack in stacks]
    if as_json:
        print_json({"stacks": found})
    else:
        _columns(found)
    return TROUBLE if any("refused" in one for one in found) else 0


def _cell(found: "Mapping[str, Any]", name: str) -> str:
    value = found.get(name)
    return "-" if value is None else format(value, _COMPARED[name])


def _columns(found: list[dict[str, Any]]) -> None:
    title = max(map(len, _COMPARED))
    first = [_cell(found[0], name) for name in _COMPARED]
    wide = max(len(found[0]["stack"]), *map(len, first))
    print(f"  {'':{title}}  {found[0]['stack']:{wide}}  {found[1]['stack']}")
    for name in _COMPARED:
        values = [one.get(name) for one in found]
        if name.startswith("scheduled") and values == [None, None]:
            continue
        cells = [_cell(one, name) for one in found]
        line = f"{name:{title}}  {cells[0]:{wide}}  {cells[1]}"
        print(f"* {coloured(line, '1')}" if values[0] != values[1] else f"  {line}")
    flags = [_words(one.get("flags", [])) for one in found]
    for one, own, other in zip(found, flags, reversed(flags), strict=True):
        for line in own if "refused" not in one and other else ():
            if line not in other and not line.startswith("--model "):
                print(f"only {one['stack']}: {line}")
    for one in found:
        if "refused" not in one:
            _show_price(one, one["stack"])
        for message in one.get("refused", ()):
            print(coloured(f"{one['stack']} is refused: {message}", "31"))


def _show_price(found: "Mapping[str, Any]", stack: str = "") -> None:
    """Print a price of tokens that is part of what JSON has."""
    title = f"token price{stack and f' of {stack}'}"
    if found["token_price"] is None:
        print(f"{title}: unknown, because {found['token_price_unknown']}")
        return
    print(f"{title} (computed):")
    for line in found["token_price"]["sentences"]:
        print(f"  {line}")
