"""`pulumi-vllm reconcile`: bring a server back whose machine is gone, by the policy of its stack file."""

import argparse
import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pulumi_vllm.cli.terminal import UsageError, print_json, say

_FOLDER: Final = Path(".pulumi-vllm")
_LOCKED = 3
_LONGEST_SCHEDULE_MIN = 24 * 60


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reconcile`."""
    text = "rent a machine again that the provider took, within the budget"
    parser = commands.add_parser(
        "reconcile",
        help=f"{text}; exit 0 fine, 2 no machine because of the budget, 3 locked",
        description=f"{text[0].upper()}{text[1:]}. For a schedule: it looks at the state and the cloud, decides by "
        "`machine.spot`, `max_usd_per_day` and `max_usd_per_month` of the stack file as it was last deployed, and does "
        "nothing or runs `pulumi up` in this folder. A machine that `pulumi destroy` ended stays away. Exit with 0 if "
        "nothing was to be done or it was done, with 1 if it failed, with 2 if there is no machine because of the "
        "budget, and with 3 if another update holds the stack's lock.",
    )
    parser.add_argument("stack", metavar="STACK", help="a stack of the project in this folder")
    parser.add_argument(
        "--every",
        type=float,
        default=15.0,
        metavar="MINUTES",
        help="time between two runs of the schedule (default: 15). The budget covers a machine until the run after the "
        "next one, so that one may be missed",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help=f"where each run that does something adds a line (default: {_FOLDER}/reconcile-STACK.jsonl)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    if not 0 < parsed.every <= _LONGEST_SCHEDULE_MIN:
        raise UsageError(f"--every {parsed.every:g}: write a number of minutes above 0, up to a day")
    stack: str = parsed.stack
    from pulumi_vllm.cli import stack_state  # `pulumi-vllm --help` loads this module too

    stack_state.exported(stack)  # an unknown stack leaves no file here
    # Of a name such as organization/project/stack, the last part.
    file_name = stack.rpartition("/")[2]
    with _one_at_a_time(_FOLDER / f"reconcile-{file_name}.lock") as free:
        if not free:
            say(f"{stack}: another reconcile of this folder runs; the next run looks again")
            if parsed.json:
                print_json(
                    {"stack": stack, "action": "nothing", "because": "another reconcile runs", "done": False}
                )
            return _LOCKED
        record = parsed.record or _FOLDER / f"reconcile-{file_name}.jsonl"
        from pulumi_vllm.cli.recovery_run import RecoveryRun  # imports what takes 0.3 s

        left = _FOLDER / f"reconcile-{file_name}.running.json"
        run = RecoveryRun(stack, parsed.every * 60, record, left, quiet=parsed.json)
        result = run.decide_only() if parsed.dry_run else run.reconcile()
    if parsed.json:
        print_json(result.document())
    return result.code


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[bool]:
    """Hold a lock file of this folder; yields False if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
