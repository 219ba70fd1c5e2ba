"""Run every row of faults.py on its own local cloud, and write docs/reference/faults.md.

    python tests/e2e/fault_table.py --write            # all rows: about an hour and a half
    python tests/e2e/fault_table.py --write hub 429    # the rows with these words; the others stay

It needs root and the engine on PATH, like the tests of tier ci. The exit code is 1 if a row failed.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import time

from destroys import DestroyRow
from faults import ROWS, key
from harness import REPOSITORY, LocalCloud
from rig import Outcome, Rig, Row

TARGET = REPOSITORY / "docs" / "reference" / "faults.md"
HEAD = """# What happens when something goes wrong

Each row is a fault that a test ordered from the local cloud or its model hub, or a crash, during a real `pulumi up`
with the fake engine. After each fault there is at most one machine, and its id is in state. Where `up` failed, it
printed one error, and the next `up` finished, on the same machine unless the provider had taken it. No machine was
rented that the row does not mention, the gateway answers, and the next preview proposes no change.

`python tests/e2e/fault_table.py --write` writes this page (as root, in about an hour and a half). The rows are in
`tests/e2e/faults.py`, `reclaims.py`, `crashes.py` and `destroys.py`; CI runs some of them. The seconds are from one
run on a shared computer with two cores, with the clock of the cloud at 60 times real time.

* A machine has an hour to start. `customTimeouts` on `vllm:spheron:Instance` change that (inside `Server`, through a
  transform); in the rows "beyond its time" it had 12 s.
* A create is sent once. After a lost response, the machine is searched by its name for a minute; rows of 60 s and more
  spend their time on that.
* Responses after the client's time-out of 120 s are tested in `tests/spheron` with a shorter time-out.

"""
DESTROY = """
## While a stack is destroyed

The same faults during a real `pulumi destroy` of a running stack. After the first `destroy`, nothing exists in the
cloud that state does not know. Where it failed, it printed one error, and the next `destroy` finished. If the whole API
was away, it printed one error each for machine, volume and key; the first is shown. In the end, state is empty and the
cloud lists neither a machine nor a key of the stack. The volume is kept, or deleted in the rows that mention it.

"""
COLUMNS = ("fault", "outcome", "message", "s")


def described(row: Row) -> tuple[str, str]:
    """Return fault and expected outcome of a row."""
    if not row.error_parts:
        return row.name, "recovers" if not row.another else "recovers on another machine"
    left = "one machine, in state" if row.left else "no machine"
    return row.name, f"fails, {left}" + ("; then another one" if row.another else "")


def written(row: Row, outcome: Outcome) -> str:
    """Return the line of a row in the table."""
    again = "" if outcome.again_seconds is None else f"{outcome.again_seconds:.0f}"
    return _line(*described(row), _without_ids(outcome.message), f"{outcome.seconds:.0f}", again)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _without_ids(message: str) -> str:
    """Replace the ids, addresses and names of one run."""
    message = re.sub(r"fault-\d+-[a-z0-9-]+", "NAME", message)
    message = re.sub(
        r"\b[0-9a-f]{24}\b|computefilesystem-\w+|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", message
    )
    message = re.sub(r"urn:pulumi:\S+?(?=['`\s])", "URN", message)
    message = re.sub(r"\b10\.\d+\.\d+\.\d+\b", "ADDRESS", message)
    message = re.sub(r"http://[\w.]+:\d+", "URL", message)
    return message.replace("|", "/")


def lines_of(text: str) -> dict[str, str]:
    """Return the rows of an existing page by fault."""
    found = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in found}


def document(lines: dict[str, str]) -> str:
    """Return the whole page, with the rows in the order of faults.py."""
    ups = [row for row in ROWS if not isinstance(row, DestroyRow)]
    destroys = [row for row in ROWS if isinstance(row, DestroyRow)]
    return HEAD + _table("up", ups, lines) + DESTROY + _table("destroy", destroys, lines)


def _table(verb: str, rows: list[Row], lines: dict[str, str]) -> str:
    columns = (*COLUMNS, f"`{verb}` again, s")
    ruler = _line(*["---"] * len(columns))
    return "\n".join([_line(*columns), ruler, *(lines[r.name] for r in rows if r.name in lines)]) + "\n"


def main() -> int:
    """Run the selected rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("words", nargs="*", help="only rows whose name contains one of these words")
    parser.add_argument("--write", action="store_true", help="write docs/reference/faults.md, row by row")
    parser.add_argument("--missing", action="store_true", help="only rows that are not on the page yet")
    parser.add_argument("--list", action="store_true", help="print the rows and exit")
    parsed = parser.parse_args()
    wanted = [r for r in ROWS if not parsed.words or any(w in r.name or w == key(r) for w in parsed.words)]
    if parsed.missing and TARGET.exists():
        existing = lines_of(TARGET.read_text())
        wanted = [row for row in wanted if row.name not in existing]
    if parsed.list:
        sys.stdout.writelines(f"{key(row)}: {row.name}\n" for row in wanted)
        return 0
    folder = REPOSITORY / ".pulumi-vllm" / f"faults-{os.getpid()}"
    cloud = LocalCloud(folder / "cloud", "fake")
    failed = []
    # An interrupt still runs the clean-up below.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        cloud.up()
        rig = Rig(cloud, folder)
        for row in wanted:
            began = time.monotonic()
            try:
                outcome = row.prove(rig)
            except (AssertionError, OSError) as error:
                failed.append(row.name)
                sys.stdout.write(f"FAILED  {row.name}\n{error}\n")
                rig.start_over()
                continue
            finally:
                sys.stdout.flush()
            whole = time.monotonic() - began
            sys.stdout.write(
                f"passed  {row.name} ({outcome.seconds:.0f} s of {whole:.0f})  {outcome.message}\n"
            )
            sys.stdout.flush()
            if parsed.write:
                _write(row, outcome)
        rig.end()
    finally:
        cloud.down()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{len(wanted) - len(failed)} of {len(wanted)} rows passed\n")
    return 1 if failed else 0


def _write(row: Row, outcome: Outcome) -> None:
    lines = lines_of(TARGET.read_text()) if TARGET.exists() else {}
    TARGET.write_text(document(lines | {row.name: written(row, outcome)}))


if __name__ == "__main__":
    sys.exit(main())
