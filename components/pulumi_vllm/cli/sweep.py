"""`pulumi-vllm sweep`: our instances and volumes at the cloud, which of them no state contains, and their deletion."""

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pulumi_vllm.cli import cloud_account
from pulumi_vllm.cli.pulumi_states import read_states
from pulumi_vllm.cli.sweep_deletion import delete
from pulumi_vllm.cli.terminal import TROUBLE, UsageError, print_json, say
from pulumi_vllm.spheron.inventory import Claim, Row, States, inventory

if TYPE_CHECKING:
    from pulumi_vllm.spheron.client import Spheron

LEFT_OVER, NOT_READ = 2, 3
_BEING_CREATED = (
    "an update of {} is creating it, or was interrupted then; run `pulumi up` or `pulumi destroy` there, or name it "
    "here to delete it all the same"
)


class SweepError(Exception):
    """A name on the command line cannot be deleted."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sweep`."""
    text = "list our instances and volumes at the cloud, and delete what no Pulumi state contains"
    sweep = commands.add_parser(
        "sweep",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. in state: a state that was read contains it. kept: a volume that "
        "no state contains and nothing uses, as after `pulumi destroy`. left over: an instance that the state of its "
        "stack does not contain; it is billed, and no `pulumi destroy` ends it. another stack: the state of its "
        "stack was not read. The name of an instance tells its owner and the end of its period, where the "
        "stack file has `owner` and `expires`. Exit code: 2 if something is left over, or, with --expired, expired; "
        "else 3 if an instance belongs to another stack; else 0; 1 if something could not be read or deleted.",
    )
    sweep.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="with --delete: delete these only, by name or id, also those of another stack",
    )
    sweep.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="PATH|URL",
        help="state to read: a file of `pulumi stack export`, the folder of a file backend, or the address of a "
        "backend, which the Pulumi CLI reads; may be repeated (default: the backend in PULUMI_BACKEND_URL, or the "
        "one that the Pulumi CLI is logged in to)",
    )
    sweep.add_argument(
        "--all-states",
        action="store_true",
        help="the states are all that exist, so nothing belongs to another stack",
    )
    sweep.add_argument(
        "--delete",
        action="store_true",
        help="end the instances that are left over, without draining them; one within its minimum run time is left "
        "for the next run",
    )
    sweep.add_argument(
        "--volumes", action="store_true", help="with --delete: delete kept volumes and their content too"
    )
    sweep.add_argument(
        "--expired",
        action="store_true",
        help="list only the instances whose period (`expires`) ended 15 minutes ago or more, and those that are "
        "powered off, in whatever state; with --delete: end them. It reads no state",
    )
    sweep.add_argument("--yes", action="store_true", help="do not ask before deleting")
    sweep.add_argument("--json", action="store_true", help="print JSON")
    sweep.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    _check_usage(parsed)
    cloud = cloud_account.connect()
    if parsed.expired:
        return _sweep_expired(cloud, parsed)
    instances, volumes = cloud.instances.list(), cloud.volumes.list()
    states = read_states(parsed.state, all_states=parsed.all_states)
    rows = inventory(instances, volumes, states)
    results: dict[str, str | None] = {}
    if parsed.delete:
        chosen = _chosen(rows, parsed.names, volumes=parsed.volumes)
        if not parsed.names:
            results = {row.id: _BEING_CREATED.format(row.creator) for row in chosen if row.creator}
            chosen = [row for row in chosen if not row.creator]
        if chosen and (parsed.yes or _confirmed(chosen)):
            results |= delete(cloud, chosen)
    read = sorted(f"{project}/{stack}" for stack, project in states.stacks)
    if parsed.json:
        print_json(_document(rows, results, read))
    else:
        _show(rows, results, read)
    deleted = {found for found, reason in results.items() if reason is None}
    # A volume whose instance was ended is a kept one from now on.
    left = [
        row
        for row in rows
        if row.id not in deleted and not (row.attached_to and deleted.issuperset(row.attached_to))
    ]
    failed = [row for row in left if results.get(row.id) and row.claim is not Claim.LEFT_OVER]
    if failed:
        return TROUBLE
    if any(row.claim is Claim.LEFT_OVER for row in left):
        return LEFT_OVER
    return NOT_READ if any(row.claim is Claim.ANOTHER_STACK and row.kind == "instance" for row in left) else 0


def _check_usage(parsed: argparse.Namespace) -> None:
    if (parsed.names or parsed.volumes) and not parsed.delete:
        raise UsageError("NAME and --volumes have an effect with --delete only; add it")
    if parsed.expired and (parsed.names or parsed.volumes or parsed.state or parsed.all_states):
        raise UsageError("--expired takes neither NAME, --volumes, --state nor --all-states; leave them out")


def _sweep_expired(cloud: "Spheron", parsed: argparse.Namespace) -> int:
    """List or end what is expired. The names tell it, so that a job needs the key of the cloud only."""
    now = datetime.now(UTC)
    rows = [
        row for row in inventory(cloud.instances.list(), (), States({}, frozenset())) if row.is_expired(now)
    ]
    results: dict[str, str | None] = {}
    if parsed.delete and rows and (parsed.yes or _confirmed(rows)):
        results = delete(cloud, rows)
    if parsed.json:
        print_json(_document(rows, results, []))
    else:
        for row in rows:
            print(_line("expired", row, results))
        if not rows:
            print("the cloud lists no expired instance of ours")
        elif not parsed.delete:
            per_day = sum(row.usd_per_day for row in rows)
            print(
                f"expired: {len(rows)}, ${per_day:.2f} per day; `pulumi-vllm sweep --expired --delete` ends them"
            )
    return LEFT_OVER if any(results.get(row.id, "") is not None for row in rows) else 0


def _chosen(rows: list[Row], names: list[str], *, volumes: bool) -> list[Row]:
    """Return what is to be deleted. A volume is never deleted without --volumes."""
    if not names:
        deletable = {
            "instance": {Claim.LEFT_OVER},
            "volume": {Claim.LEFT_OVER, Claim.KEPT} if volumes else set(),
        }
        return [row for row in rows if row.claim in deletable[row.kind]]
    chosen, errors = [], []
    for name in names:
        row = next((row for row in rows if name in {row.name, row.id}), None)
        if row is None:
            errors.append(f"{name}: no instance or volume of ours has this name or id")
        elif row.claim is Claim.IN_STATE:
            errors.append(f"{name}: is in the state of {row.stack}; run `pulumi destroy` there")
        elif row.kind == "volume" and not volumes:
            errors.append(f"{name}: is a volume; add --volumes to delete it with its content")
        elif any(holder not in names for holder in row.attached_to):
            errors.append(f"{name}: is attached to the instance {row.attached_to[0]}; name it too")
        else:
            chosen.append(row)
    if errors:
        raise SweepError("\n".join([*errors, "nothing was deleted"]))
    return chosen


def _confirmed(rows: list[Row]) -> bool:
    """Ask at a terminal. A script has decided already."""
    if not sys.stdin.isatty():
        return True
    for row in rows:
        print(f"delete the {row.kind} {row.name} (${row.usd_per_day:.2f}/day)", file=sys.stderr)
    say("type yes to delete:")
    return input() == "yes"


def _document(rows: list[Row], results: dict[str, str | None], read: list[str]) -> dict[str, object]:
    return {
        "stacks_read": read,
        "found": [
            {
                "kind": row.kind,
                "id": row.id,
                "name": row.name,
                "status": row.status,
                "usd_per_day": round(row.usd_per_day, 4),
                "claim": row.claim.value,
                "stack": row.stack,
                "attached_to": list(row.attached_to),
                "owner": row.owner,
                "expires": row.expires.isoformat() if row.expires else None,
                "deleted": row.id in results and results[row.id] is None,
                "not_deleted_because": results.get(row.id),
            }
            for row in rows
        ],
        "usd_per_day": {
            claim.value: round(sum(row.usd_per_day for row in rows if row.claim is claim), 4)
            for claim in Claim
        },
    }


def _line(claim: str, row: Row, results: dict[str, str | None]) -> str:
    deleted = "deleted" if row.id in results and results[row.id] is None else ""
    note = deleted or results.get(row.id) or (f"({row.stack})" if row.stack else "")
    marks = [f"owner {row.owner}"] if row.owner else []
    marks += [f"expires {row.expires:%Y-%m-%d %H:%M} UTC"] if row.expires else []
    price = f"${row.usd_per_day:.2f}/day"
    text = f"{claim:13} {row.kind:8} {row.name:44} {row.status:10} {price:>12}  {row.id}  {', '.join(marks)}  {note}"
    return text.rstrip()


def _show(rows: list[Row], results: dict[str, str | None], read: list[str]) -> None:
    for row in rows:
        print(_line(row.claim.value, row, results))
    remedies = {
        Claim.LEFT_OVER: "`pulumi-vllm sweep --delete` ends the instances",
        Claim.KEPT: "the next `pulumi up` of its stack uses it; `pulumi-vllm sweep --delete --volumes NAME` deletes it",
        Claim.ANOTHER_STACK: "name its state with --state, or pass --all-states if there is no other state",
    }
    for claim, remedy in remedies.items():
        found = [row for row in rows if row.claim is claim and results.get(row.id, "") is not None]
        if found:
            per_day = sum(row.usd_per_day for row in found)
            print(f"{claim.value}: {len(found)}, ${per_day:.2f} per day; {remedy}")
    if not rows:
        print("the cloud lists no instance and no volume of ours")
    print(f"states read: {', '.join(read) or 'none'}")
