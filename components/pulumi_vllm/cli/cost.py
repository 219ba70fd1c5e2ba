"""`pulumi-vllm cost`: what a stack has cost, from the cloud's records where it has them."""

import argparse
import math
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from pulumi_vllm.cli import cloud_account, pulumi_yaml, stack_file, stack_state
from pulumi_vllm.cli.terminal import print_json
from pulumi_vllm.component import project_file
from pulumi_vllm.plan import schedule
from pulumi_vllm.plan.names import is_of_stack
from pulumi_vllm.plan.spend_report import Item, Report, iso
from pulumi_vllm.spheron.models import Instance, Volume

_TYPES = {"vllm:spheron:Instance", "vllm:spheron:Volume"}
_OWN = "vllm:host:Machine"


class CostError(Exception):
    """The project's name is missing, or the cloud does not bill the machine."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `cost`."""
    text = "show what a stack has cost since its start and in this month, and what the month will cost"
    cost = commands.add_parser(
        "cost",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Machines, ended ones too, and volumes are those that the state "
        "holds, or whose name tells the stack. What the cloud says it has charged counts, spread evenly over the time "
        "of the rental. Of volumes it says nothing, so their cost is computed from time and price, and so is the "
        "forecast. Volumes that were deleted are not in the cloud's list. Months are those of UTC.",
    )
    cost.add_argument("stack", metavar="STACK", help="a stack of the project in this folder")
    cost.add_argument("--json", action="store_true", help="print JSON")
    cost.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    deployment: dict[str, Any] = stack_state.exported(parsed.stack).get("deployment") or {}
    if any(one.get("type") == _OWN for one in deployment.get("resources") or ()):
        raise CostError(
            f"{parsed.stack}: its machine was made by somebody else (server.machine.cloud: none), and nobody reports "
            "its hours here; look at the bill of whoever rents it to you"
        )
    cloud = cloud_account.connect()
    project, stack, ids = _owned(parsed.stack, deployment)
    instances, volumes = cloud.instances.list(), cloud.volumes.list()
    now = cloud.transport.server_time or time.time()

    def is_ours(one: Instance | Volume) -> bool:
        return one.id in ids or is_of_stack(one.name, stack, project)

    items = [_machine(one, now) for one in instances if is_ours(one)]
    items += [_volume(one, now) for one in volumes if is_ours(one)]
    items.sort(key=lambda one: one.began)
    report = Report(items, now, _schedule(parsed.stack))
    if parsed.json:
        print_json({"stack": f"{project}/{stack}", **report.document()})
    else:
        _show(f"{project}/{stack}", report)
    return 0


def _owned(name: str, deployment: dict[str, Any]) -> tuple[str, str, set[str]]:
    """Return project and stack, and the ids of machines and volumes in its state."""
    resources = deployment.get("resources") or []
    ids = {str(one["id"]) for one in resources if one.get("type") in _TYPES and one.get("id")}
    if resources:
        stack, project = str(resources[0]["urn"]).removeprefix("urn:pulumi:").split("::")[:2]
    else:  # after `pulumi destroy`
        *above, stack = name.split("/")
        project = above[-1] if len(above) > 1 else _project_here()
    return project, stack, ids


def _project_here() -> str:
    try:
        path = project_file.find_above(Path.cwd()) or Path("Pulumi.yaml")
        document = pulumi_yaml.parse(pulumi_yaml.read(path), path.name) if path.is_file() else {}
        return str(document["name"])
    except KeyError:
        raise CostError(f"{path}: has no name, or is missing; run this in the project's folder") from None
    except pulumi_yaml.ProjectFileError as error:
        raise CostError(str(error)) from None


def _schedule(stack: str) -> tuple[schedule.Cron, schedule.Cron] | None:
    """Return the schedule of the stack file in this folder, if there is one."""
    try:
        found = stack_file.block_of(stack_file.find(stack.rpartition("/")[2])).get("schedule") or {}
        return schedule.parse(str(found["up"])), schedule.parse(str(found["down"]))
    except (stack_file.StackFileError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _machine(one: Instance, now: float) -> Item:
    began = _moment(one.created_at) or now
    # A failed one may be billed until it is deleted.
    stopped = _moment(one.stopped_at) if one.terminal else None
    ended = stopped or (began if one.gone else None)
    return Item("machine", one.id, one.name, one.status, began, ended, one.usd_per_hour, one.usd)


def _volume(one: Volume, now: float) -> Item:
    return Item(
        "volume", one.id, one.name, one.status, _moment(one.created_at) or now, None, one.usd_per_hour
    )


def _moment(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def _show(name: str, report: Report) -> None:
    if report.since is None:
        print(f"{name}: the cloud lists no machine and no volume of this stack")
        return
    for one in report.items:
        until = "now" if one.ended is None else _shown(one.ended)
        price = "-" if one.usd_per_hour is None else f"${one.usd_per_hour:.4f}/h"
        usd = one.usd(-math.inf, math.inf, report.now)
        print(
            f"{one.kind:8} {one.name:44} {one.status:19} {_shown(one.began)} - {until:16} {price:>11} {usd:>10,.2f}  "
            f"{one.source}"
        )
    computed = f", ${report.computed_usd:,.2f} of it computed" if report.computed_usd else ""
    end = report.document()["forecast"]["until"]
    print(f"since {_shown(report.since)} UTC: ${report.usd:,.2f}{computed}")
    print(f"this month: ${report.usd_this_month:,.2f}")
    print(f"forecast until {end[:10]}: ${report.usd_forecast:,.2f} (computed: {report.assumes})")
    print(f"billed now: ${report.usd_per_hour * 24:,.2f} per day")


def _shown(moment: float) -> str:
    return iso(moment)[:16].replace("T", " ")
