"""`pulumi-vllm sweep`: list our instances and volumes that no Pulumi state contains."""

import argparse
import json
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sweep`."""
    text = "list instances and volumes that pulumi-vllm created and no Pulumi state contains"
    sweep = commands.add_parser(
        "sweep",
        help=f"{text}; exit 2 if there are any",
        description=f"{text[0].upper()}{text[1:]}. They are billed, and no `pulumi destroy` deletes them. A volume "
        "that a destroyed stack kept is one of them. Exit with 2 if there are any.",
    )
    sweep.add_argument(
        "--state",
        type=Path,
        action="append",
        metavar="PATH",
        help="state to read: a file of `pulumi stack export`, or a folder of a file backend; may be repeated "
        "(default: the file backend in PULUMI_BACKEND_URL)",
    )
    sweep.add_argument("--json", action="store_true", help="print JSON")
    sweep.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from pulumi_vllm.spheron import unclaimed  # requests takes 0.1 s

    known = unclaimed.known_ids(parsed.state or unclaimed.default_states())
    found = unclaimed.unclaimed(unclaimed.client_from_environment(), known)
    if parsed.json:
        print(json.dumps([row._asdict() for row in found], indent=2))
    elif not found:
        print("every instance and volume of ours is in one of the states")
    else:
        for row in found:
            print(f"{row.kind:8} {row.name:46} {row.status:12} {row.id}  ${row.usd_per_day:.2f}/day")
        print(f"{len(found)} that no state contains, ${sum(row.usd_per_day for row in found):.2f} per day")
    return 2 if found else 0
