"""The command `pulumi-vllm`: what people type beside `pulumi`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__

_TROUBLE = 1
_USAGE = 64  # sysexits.h: EX_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] | None = getattr(parsed, "run", None)
    if run is None:
        parser.print_help()
        return _USAGE
    try:
        return run(parsed)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__module__.startswith("pulumi_vllm."):
            _say(str(error))
            return _TROUBLE
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pulumi-vllm", description="Serve an open-weight LLM on rented GPUs."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    plan = commands.add_parser(
        "plan", help="what a stack file would run, whether it fits, and why; no network"
    )
    plan.add_argument("stack_file", type=Path, help="for example stacks/Pulumi.local.yaml")
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")
    plan.set_defaults(run=_plan)

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

    from .localcloud import command  # noqa: PLC0415 (its own imports are lazy)

    command.add_parser(commands)
    return parser


def _plan(parsed: argparse.Namespace) -> int:
    import yaml  # noqa: PLC0415

    from .plan import plan  # noqa: PLC0415
    from .plan.config import Deployment  # noqa: PLC0415

    try:
        document = yaml.safe_load(parsed.stack_file.read_text())
        block = document["config"]["pulumi-vllm:server"]
    except OSError as error:
        _say(f"{parsed.stack_file}: {error.strerror}; name a stack file")
        return _TROUBLE
    except (yaml.YAMLError, KeyError, TypeError):
        _say(f"{parsed.stack_file}: no `config: pulumi-vllm:server:` in it; see stacks/ for examples")
        return _TROUBLE
    summary = plan(Deployment.parse(block)).summary()
    if parsed.json:
        print(json.dumps(summary, indent=2))
        return 0
    for title, value in summary.items():
        print(f"{title}:")
        rows = (
            value
            if isinstance(value, list)
            else [f"{k}: {v}" for k, v in value.items()]
            if isinstance(value, dict)
            else [value]
        )
        for row in rows:
            print(f"  {row}")
    return 0


def _sweep(parsed: argparse.Namespace) -> int:
    from . import sweep  # noqa: PLC0415

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


def _say(text: str) -> None:
    print(f"pulumi-vllm: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
