"""Runs every row of faults.py on a local cloud of its own and writes docs/faults.md.

    python tests/e2e/fault_table.py --write            # all rows: about an hour and a half
    python tests/e2e/fault_table.py --write hub 429    # the rows with these words, the others as they were

Needs root and the engine on PATH, as the tests of tier ci do. Exit code 1 where a row did not hold.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import time

from destroys import Departure
from faults import ROWS, key
from harness import REPOSITORY, LocalCloud
from stand import Outcome, Row, Stand

TARGET = REPOSITORY / "docs" / "faults.md"
HEAD = """# What happens when something goes wrong

Each row is a fault that the local cloud or its model hub was told to make, or a crash, in a real `pulumi up` with the
fake engine. After each of them at most one machine of ours is at the cloud and its id is in state; where `up`
failed it said one sentence, and `up` again finished, on the same machine unless that was taken away; no machine was
rented that the row does not tell of; the gateway answers; and the preview after it proposes nothing.

Written by `python tests/e2e/fault_table.py --write` (root; about an hour and a half). The rows are in
`tests/e2e/faults.py`, `reclaims.py`, `crashes.py` and `destroys.py` beside it; some of them run in every CI. Seconds
are of one run on a shared computer with two cores; the cloud's clock ran 60 times as fast.

* A machine gets an hour to come up. `customTimeouts` on `vllm:spheron:Instance` change that (a transform reaches it
  inside `Server`); the rows "beyond its time" gave it 12 s.
* A create is sent once. After an answer that got lost the machine is looked for by its name for a minute, which is what
  the rows of 60 s and more spend their time on.
* Answers that come after the client's own patience of 120 s are not waited for here; `tests/spheron` tries them with a
  shorter one.

"""
DESTROY = """
## While a stack is destroyed

The same in a real `pulumi destroy` of a stack that serves. After the first of them nothing is at the cloud that state
does not know; where it failed it said one sentence (one each for machine, disk and key where the whole API was away:
the first is shown), and `destroy` again finished. Then state is empty and the cloud's
own list has neither a machine nor a key of ours; the disk is kept, or gone too in the rows that tell of it.

"""
COLUMNS = ("fault", "outcome", "what the person reads", "s")


def described(row: Row) -> tuple[str, str]:
    """What is known of a row without running it."""
    if not row.says:
        return row.switch, "recovers" if not row.another else "recovers on another machine"
    left = "one machine, in state" if row.left else "no machine"
    return row.switch, f"fails, {left}" + ("; then another one" if row.another else "")


def written(row: Row, outcome: Outcome) -> str:
    """One line of the table."""
    again = "" if outcome.again_seconds is None else f"{outcome.again_seconds:.0f}"
    return _line(*described(row), _plain(outcome.said), f"{outcome.seconds:.0f}", again)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(said: str) -> str:
    """Ids, addresses and names of one run have no place in a table."""
    said = re.sub(r"fault-\d+-[a-z0-9-]+", "NAME", said)
    said = re.sub(
        r"\b[0-9a-f]{24}\b|computefilesystem-\w+|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", said
    )
    said = re.sub(r"urn:pulumi:\S+?(?=['`\s])", "URN", said)
    said = re.sub(r"\b10\.\d+\.\d+\.\d+\b", "ADDRESS", said)
    said = re.sub(r"http://[\w.]+:\d+", "URL", said)
    return said.replace("|", "/")


def lines_of(text: str) -> dict[str, str]:
    """The rows of a table that was written before, by fault."""
    found = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in found}


def document(lines: dict[str, str]) -> str:
    """The whole page, its rows in the order of faults.py."""
    ups = [row for row in ROWS if not isinstance(row, Departure)]
    destroys = [row for row in ROWS if isinstance(row, Departure)]
    return HEAD + _table("up", ups, lines) + DESTROY + _table("destroy", destroys, lines)


def _table(verb: str, rows: list[Row], lines: dict[str, str]) -> str:
    columns = (*COLUMNS, f"`{verb}` again, s")
    ruler = _line(*["---"] * len(columns))
    return "\n".join([_line(*columns), ruler, *(lines[r.switch] for r in rows if r.switch in lines)]) + "\n"


def main() -> int:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("words", nargs="*", help="only rows whose name holds one of these")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md, row by row")
    parser.add_argument("--missing", action="store_true", help="only rows that the page does not have yet")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parsed = parser.parse_args()
    wanted = [r for r in ROWS if not parsed.words or any(w in r.switch or w == key(r) for w in parsed.words)]
    if parsed.missing and TARGET.exists():
        there = lines_of(TARGET.read_text())
        wanted = [row for row in wanted if row.switch not in there]
    if parsed.list:
        sys.stdout.writelines(f"{key(row)}: {row.switch}\n" for row in wanted)
        return 0
    folder = REPOSITORY / ".pulumi-vllm" / f"faults-{os.getpid()}"
    cloud = LocalCloud(folder / "cloud", "fake")
    failed = []
    # Whatever started it: an end from outside still destroys what there is.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        cloud.up()
        stand = Stand(cloud, folder)
        for row in wanted:
            began = time.monotonic()
            try:
                outcome = row.prove(stand)
            except (AssertionError, OSError) as error:
                failed.append(row.switch)
                sys.stdout.write(f"FAILED  {row.switch}\n{error}\n")
                stand.give_up()
                continue
            finally:
                sys.stdout.flush()
            whole = time.monotonic() - began
            sys.stdout.write(
                f"held    {row.switch} ({outcome.seconds:.0f} s of {whole:.0f})  {outcome.said}\n"
            )
            sys.stdout.flush()
            if parsed.write:
                _keep(row, outcome)
        stand.end()
    finally:
        cloud.down()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{len(wanted) - len(failed)} of {len(wanted)} rows held\n")
    return 1 if failed else 0


def _keep(row: Row, outcome: Outcome) -> None:
    lines = lines_of(TARGET.read_text()) if TARGET.exists() else {}
    TARGET.write_text(document(lines | {row.switch: written(row, outcome)}))


if __name__ == "__main__":
    sys.exit(main())
