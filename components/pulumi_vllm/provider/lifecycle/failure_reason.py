"""Why a unit failed, in its own words: from what it recorded, or from the journal of the start that failed."""

import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.host.mask import mask

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

# With four workers, vLLM prints about 400 lines of tracebacks (0.26.0, captured on two H100: 190).
_JOURNAL_LINES = 2000
_LAST_LINES = 6
_EXCEPTIONS = 2
_LONGEST_LINE = 400
# "(EngineCore pid=786) ERROR 11-24 00:15:48 [core.py:1330] torch.OutOfMemoryError: CUDA out of memory. …". The lines of
# a traceback are indented.
_LOG_PREFIX = re.compile(
    r"^(?:\([^)]*\) ?)*(?:(?:ERROR|CRITICAL|WARNING|INFO)(?: [\d-]+ [\d:]+)? \[[^\]]*\] )?"
)
_EXCEPTION = re.compile(
    r"^(?:(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?:: .*)?|[\w.-]+: error: .+)$"
)
# What the API server prints about a core that died for another reason, which is printed before.
_CONSEQUENCE = re.compile(
    r"EngineDeadError|Engine core initialization failed|cannot schedule new futures|^SystemExit|CancelledError"
)


async def failure_reason(
    host: "Host", unit: str, record: dict[str, Any] | None = None, *, invocation: str = ""
) -> str:
    """Return the error in a unit's record, or what its journal says, with secrets masked.

    `invocation` is the start that failed, as systemd's InvocationID; without it, the last start counts.
    """
    if record and record.get("error"):
        return mask(str(record["error"]))
    script = _JOURNAL.format(unit=unit, invocation=invocation, lines=_JOURNAL_LINES)
    journal = await host.run(script, timeout_s=60, check=False)
    own, _, ending = journal.stdout.partition(_SEPARATOR)
    return mask(last_words(own.splitlines(), ending.splitlines())) or "its journal is empty"


def last_words(own: list[str], ending: list[str]) -> str:
    """Return the exceptions in a program's lines, else its last lines, and how systemd says that it ended."""
    lines = [line.strip() for line in own if line.strip()]
    exceptions = []
    for line in own:
        plain = _LOG_PREFIX.sub("", line.rstrip(), count=1)
        if _EXCEPTION.match(plain):
            exceptions.append(_shortened(plain))
    causes = [line for line in exceptions if not _CONSEQUENCE.search(line)] or exceptions
    if causes:
        return " | ".join(list(dict.fromkeys(reversed(causes)))[:_EXCEPTIONS][::-1])
    ended = [line.split(".service: ", 1)[-1].strip() for line in ending if line.strip()]
    return " | ".join(_shortened(line) for line in (*lines[-_LAST_LINES:], *ended))


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


_SEPARATOR = "--- how it ended ---\n"
# The lines of the program itself, because after some restarts systemd's own lines would push them out, and so would
# those of ExecStartPre, which runs as root. Only those of one start, because others may have another cause.
_JOURNAL = f"""
invocation={{invocation}}
[ -n "$invocation" ] || invocation=$(systemctl show -P InvocationID {{unit}})
user=$(systemctl show -P User {{unit}})
user=${{{{user:+_UID=$(id -u "$user" 2>/dev/null)}}}}
own() {{{{
    [ -z "$invocation" ] || journalctl --no-pager -q -o cat _SYSTEMD_INVOCATION_ID=$invocation "$@" 2>/dev/null
}}}}
lines=$(own $user | tail -n {{lines}})
[ -n "$lines" ] || lines=$(own | tail -n {{lines}})
ending=$([ -z "$invocation" ] || journalctl --no-pager -q -o cat INVOCATION_ID=$invocation _PID=1 2>/dev/null |
    grep -E 'OOM killer|process exited' || true)
[ -n "$lines$ending" ] || lines=$(journalctl -n 3 --no-pager -q -o cat -u {{unit}} 2>/dev/null || true)
printf '%s\\n' "$lines" '{_SEPARATOR.strip()}' "$ending"
"""
