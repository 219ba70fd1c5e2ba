"""`pulumi-vllm recommend --write`: the cheapest machine in the user's stack file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_vllm.plan.recommendation import Fitting, Wish


def check(stack: str) -> None:
    """Refuse a stack that does not exist, before anything is computed."""
    # Only --write needs the YAML libraries.
    from pulumi_vllm.cli import stack_file

    stack_file.find(stack)


def write(parsed: argparse.Namespace, wish: "Wish", rows: "Sequence[Fitting]") -> None:
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
        say(f"{path}: {price.mix.load} need {price.machines:,} such machines, and the stack has one")


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
