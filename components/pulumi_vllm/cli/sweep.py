"""`pulumi-vllm sweep`: machines and disks of ours that no state knows."""

import argparse
import json
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sweep`."""
    sweep = commands.add_parser("sweep", help="machines and disks of ours that no state knows; exit 2 if any")
    sweep.add_argument(
        "--state",
        type=Path,
        action="append",
        metavar="PATH",
        help="a state: an exported stack, or a folder of a file backend; may be repeated "
        "(default: the file backend in PULUMI_BACKEND_URL)",
    )
    sweep.add_argument("--json", action="store_true")
    sweep.set_defaults(run=_sweep)


def _sweep(parsed: argparse.Namespace) -> int:
    from pulumi_vllm.spheron import unclaimed as sweep

    left = sweep.leftovers(
        sweep.cloud_from_environment(), sweep.known_ids(parsed.state or sweep.default_states())
    )
    if parsed.json:
        print(json.dumps([row._asdict() for row in left], indent=2))
    elif not left:
        print("nothing of ours outside the given states")
    else:
        for row in left:
            print(f"{row.kind:8} {row.name:46} {row.status:12} {row.id}  ${row.usd_per_day:.2f}/day")
        print(f"{len(left)} left over, ${sum(row.usd_per_day for row in left):.2f} a day")
    return 2 if left else 0
