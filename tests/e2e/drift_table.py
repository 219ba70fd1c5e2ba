"""Change a real host in each way of drifts.py, repair it with `up`, and write docs/reference/drift.md.

    python tests/e2e/drift_table.py --write            # all rows: about half an hour
    python tests/e2e/drift_table.py --write firewall   # the rows with this word; the others stay

It needs root and the engine on PATH, like the tests of tier ci. The exit code is 1 if a row failed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time

from drifts import DRIFTS, Drift
from harness import REPOSITORY, LocalCloud, Project, block, shipped

TARGET = REPOSITORY / "docs" / "reference" / "drift.md"
HEAD = """# What a preview finds on the host, and what `up` does about it

`pulumi preview` observes the host, and reports what is not as declared. A test changed a running host of the local
cloud in each of these ways. Then it ran a preview (`pulumi-vllm drift`), `pulumi up`, and another preview, which had to
be clean.

A file is compared with its declared text. A process is compared with the files that it was started with: units record
them at every start and reload (`/run/pulumi-vllm/starts`), so a file that was put back does not hide what runs. User,
sandbox and limits of a process are compared with its unit, HAProxy's memory with its files (on the host: no key leaves
it), and the packages of vLLM with the lock, by name and version. Limits of control groups in the kernel are compared
where those have version 2, which the computer of these rows has not.

Accounts, SSH keys, sudo rules and options of sshd are not ours. They are compared with those of the last `up`, which
leaves a change; another text in `server.access.accepted` accepts it. The clock is compared with that of the computer
that runs Pulumi. A container has its host's clock, so the row shifts what programs on the host read.

Rules that are not ours, and what no command can repair, are refused: `up` ends with an error that says what to do.

`python tests/e2e/drift_table.py --write` writes this page, as root, in about half an hour. The rows are in
`tests/e2e/drifts.py`. Seconds are those of `up`, on a shared computer with two cores.

| on the host | `preview` says | `up` | seconds | `preview` after |
| --- | --- | --- | --- | --- |
"""


def prove(project: Project, drift: Drift) -> str:
    """Change the host, and let `preview` and `up` answer. Return the row of the table."""
    before = started(project)
    project.on_host(drift.inject)
    said = warnings(project)
    assert any(drift.says in line for line in said), f"{drift.says!r} is not in\n" + "\n".join(said)
    if drift.secret:
        printed = project.pulumi("preview", "--diff").stdout
        project.pulumi("refresh", "--yes", "--skip-preview")
        printed += project.pulumi("stack", "export", "--show-secrets").stdout
        assert "***" in printed, printed
        assert drift.secret not in printed, f"{drift.secret} is in the preview or in the state"
    injected = started(project)
    began = time.monotonic()
    done = project.pulumi("up", "--yes", "--skip-preview", check=not drift.refused)
    seconds = time.monotonic() - began
    restarted = "vLLM restarted" if started(project) != injected else "vLLM kept running"
    if drift.refused:
        assert done.returncode, done.stdout
        assert drift.says in done.stdout, done.stdout
        outcome, after = "refused", "clean after it was removed"
        project.on_host(drift.refused)
    else:
        project.on_host(drift.check)
        outcome, after = f"repaired, {restarted}", "clean"
        assert (started(project) != injected) == (drift.restarts or before == "0"), outcome
    check_clean(project)
    return line(drift.name, "<br>".join(sorted(shown(one) for one in said)), outcome, f"{seconds:.0f}", after)


def warnings(project: Project) -> list[str]:
    """Return the sentences of a preview, which must propose a change."""
    done = project.cli("drift", project.stack, "--json")
    assert done.returncode == 2, f"{done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)["messages"]


def check_clean(project: Project) -> None:
    """Check that a preview finds nothing."""
    done = project.cli("drift", project.stack)
    assert done.returncode == 0, project.pulumi("preview", "--diff").stdout


def started(project: Project) -> str:
    """Return the process of vLLM, which a restart changes."""
    return project.on_host("systemctl show -P MainPID vllm").strip()


def shown(text: str) -> str:
    """Return a warning as a cell of the table."""
    text = re.sub(r"\b10(\.\d+){3}\b", "ADDRESS", text.replace("|", "/"))
    return re.sub(r"^server-(service|attachment): ", "", text)


def line(*cells: str) -> str:
    """Return a row of the table."""
    return "| " + " | ".join(cells) + " |"


def write(drift: Drift, row: str) -> None:
    """Put a row on the page, in the order of drifts.py."""
    lines = TARGET.read_text().splitlines() if TARGET.exists() else []
    rows = {text.split(" | ")[0].removeprefix("| "): text for text in lines if text.startswith("| ")}
    rows[drift.name] = row
    TARGET.write_text(HEAD + "".join(f"{rows[one.name]}\n" for one in DRIFTS if one.name in rows))


def prove_all(drifts: list[Drift], engine: str, stack: str, *, write_rows: bool) -> list[str]:
    """Prove rows on a host of their own. Return the names of those that failed."""
    folder = REPOSITORY / ".pulumi-vllm" / f"drifts-{os.getpid()}-{engine}"
    declared = block() if stack == "local" else shipped(stack)
    cloud = LocalCloud(folder / "cloud", engine)
    failed = []
    try:
        cloud.up()
        project = Project(folder / "p", cloud, declared | {"drain_timeout_s": 2}, "drift")
        project.up(timeout=1500)  # an engine that has to be installed first takes minutes
        check_clean(project)
        for drift in drifts:
            try:
                row = prove(project, drift)
            except (AssertionError, OSError) as error:
                failed.append(drift.name)
                sys.stdout.write(f"FAILED  {drift.name}\n{error}\n")
                project.pulumi("up", "--yes", "--skip-preview", check=False)
                continue
            finally:
                sys.stdout.flush()
            sys.stdout.write(f"passed  {row}\n")
            sys.stdout.flush()
            if write_rows:
                write(drift, row)
    finally:
        cloud.down()
        shutil.rmtree(folder, ignore_errors=True)
    return failed


def main() -> int:
    """Run the selected rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("words", nargs="*", help="only rows whose name contains one of these words")
    parser.add_argument("--write", action="store_true", help="write docs/reference/drift.md, row by row")
    parsed = parser.parse_args()
    wanted = [one for one in DRIFTS if not parsed.words or any(word in one.name for word in parsed.words)]
    failed = []
    # An interrupt still runs the clean-up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    for host in dict.fromkeys((one.engine, one.stack) for one in wanted):
        rows = [one for one in wanted if (one.engine, one.stack) == host]
        failed += prove_all(rows, *host, write_rows=parsed.write)
    sys.stdout.write(f"{len(wanted) - len(failed)} of {len(wanted)} rows passed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
