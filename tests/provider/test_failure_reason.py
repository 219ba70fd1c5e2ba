"""What a failed unit's journal says. The lines are from captured starts of vLLM 0.26.0 on H100, shortened."""

import asyncio
import shutil
import subprocess

import pytest
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.lifecycle.failure_reason import failure_reason, last_words

OUT_OF_MEMORY = """\
(Worker_TP0 pid=2941) ERROR 11-24 01:02:03 [multiproc_executor.py:1007] WorkerProc hit an exception.
(Worker_TP0 pid=2941) ERROR 11-24 01:02:03 [multiproc_executor.py:1007] Traceback (most recent call last):
(Worker_TP0 pid=2941) ERROR 11-24 01:02:03 [multiproc_executor.py:1007]     raise RuntimeError(
(Worker_TP0 pid=2941) ERROR 11-24 01:02:03 [multiproc_executor.py:1007] torch.OutOfMemoryError: CUDA out of memory.
(EngineCore pid=2930) ERROR 11-24 01:02:03 [core.py:1330] ValueError: No available memory for the cache blocks.
(EngineCore pid=2930) ValueError: No available memory for the cache blocks.
(APIServer pid=2900)   File "/opt/vllm/lib/python3.12/asyncio/runners.py", line 118, in run
(APIServer pid=2900) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
""".splitlines()


def test_exceptions_are_the_reason_and_their_consequences_are_not():
    assert last_words(OUT_OF_MEMORY, []) == (
        "torch.OutOfMemoryError: CUDA out of memory. | ValueError: No available memory for the cache blocks."
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        (
            "api_server.py: error: unrecognized arguments: --x",
            "api_server.py: error: unrecognized arguments: --x",
        ),
        ("(EngineCore pid=1) KeyError: 'cmpl-1'", "KeyError: 'cmpl-1'"),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error", None),
        ("AssertionError", "AssertionError"),
        ("ImportError: cannot import name 'answers'", None),
        ("OSError: " + "x" * 1000, "OSError: " + "x" * 391 + "…"),
    ],
)
def test_every_form_of_an_exception_is_recognized(line, reason):
    assert last_words(["INFO started", line, "INFO bye"], ["x.service: Main process exited"]) == (
        reason or line
    )


@pytest.mark.parametrize(
    "line",
    [
        "WARNING 11-24 00:15:48 [system_utils.py:299] cause fd limit errors like `OSError: [Errno 24] Too many`.",
        "    raise RuntimeError('no')",
        "UserWarning: old",
    ],
)
def test_other_lines_are_no_exception(line):
    assert (
        last_words([line], ["vllm.service: Main process exited, code=killed, status=9/KILL"])
        == f"{line.strip()} | Main process exited, code=killed, status=9/KILL"
    )


def test_without_an_exception_the_last_lines_and_the_end_are_the_reason():
    lines = [f"line {number}" for number in range(20)]
    ending = ["vllm.service: A process of this unit has been killed by the OOM killer."]
    assert last_words(lines, ending) == (
        "line 14 | line 15 | line 16 | line 17 | line 18 | line 19 | "
        "A process of this unit has been killed by the OOM killer."
    )


@pytest.fixture
def journal(tmp_path):
    """A host that runs the script with these programs first on its PATH."""

    class Host:
        async def run(self, script, **_):
            done = await asyncio.to_thread(run, script)
            return Result(done.stdout, done.stderr, done.returncode)

    def run(script):
        command = [shutil.which("bash"), "-eu", "-o", "pipefail", "-c", script]
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(command, env=path, capture_output=True, text=True, check=False)

    def install(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    install("systemctl", "case $3 in InvocationID) echo next;; User) echo vllm;; esac")
    install("id", "echo 998")
    install(
        "journalctl",
        """case "$*" in
        *_SYSTEMD_INVOCATION_ID=died*_UID=998*) echo 'ValueError: the cause';;
        *_SYSTEMD_INVOCATION_ID=pre*_UID=998*) ;;
        *_SYSTEMD_INVOCATION_ID=pre*) echo 'weights: the disk is full';;
        *_SYSTEMD_INVOCATION_ID=silent*) ;;
        *' INVOCATION_ID=silent'*) echo 'vllm.service: Main process exited, code=exited, status=1/FAILURE';;
        *_SYSTEMD_INVOCATION_ID=*) echo 'weights: already complete';;
        *-u*) echo 'vllm.service: Scheduled restart job, restart counter is at 2.';;
        esac""",
    )
    return Host()


@pytest.mark.parametrize(
    ("invocation", "reason"),
    [
        ("died", "ValueError: the cause"),  # not of the next start, and not of ExecStartPre
        ("pre", "weights: the disk is full"),  # ExecStartPre failed, so the engine said nothing
        ("", "weights: already complete"),
    ],
)
async def test_the_journal_is_that_of_the_start_that_failed(journal, invocation, reason):
    assert await failure_reason(journal, "vllm.service", invocation=invocation) == reason


async def test_a_program_that_said_nothing_is_told_by_its_end(journal):
    reason = await failure_reason(journal, "vllm.service", invocation="silent")
    assert reason == "Main process exited, code=exited, status=1/FAILURE"


async def test_a_unit_that_never_started_is_told_by_systemd(journal, tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    reason = await failure_reason(journal, "vllm.service")
    assert reason == "vllm.service: Scheduled restart job, restart counter is at 2."
