"""The lock by which the process of a local cloud is known."""

import select
import subprocess
import sys

from pulumi_vllm_local.settings import is_held, lock_file

HOLD = (
    "import sys; from pathlib import Path; from pulumi_vllm_local.settings import lock_file\n"
    "for _ in range(3000):\n"
    "    lock = lock_file(Path(sys.argv[1]))\n"
    "    assert lock is not None, 'refused'\n"
    "    lock.close()\n"
    "lock = lock_file(Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


def test_whoever_asks_for_a_lock_never_refuses_it_to_a_process_that_starts(tmp_path):
    """`local up` asks all the time whether the process that it has started holds the lock."""
    path = tmp_path / "new" / "daemon.lock"
    assert not is_held(path)
    lock = lock_file(path)
    assert lock is not None
    lock.close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        while not select.select([process.stdout], [], [], 0)[0]:
            is_held(path)
        assert process.stdout.readline() == b"held\n"
        assert is_held(path)
        process.stdin.close()
    assert not is_held(path)
