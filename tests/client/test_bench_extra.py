"""Without the extra `bench`, smoke and bench name the extra to install."""

import subprocess
import sys

import pytest

WITHOUT_AIOHTTP = (
    "import sys; sys.modules['aiohttp'] = None\n"
    "from pulumi_vllm.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("command", ["smoke", "bench"])
def test_the_missing_extra_is_named(command):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AIOHTTP, command, "--url", "http://127.0.0.1:1/v1"],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("Run: pip install 'pulumi-vllm[bench]'")
    assert "Traceback" not in done.stderr
