"""What Python does in each process of vLLM before anything else."""

import os
import subprocess
import sys

from adapted import ENGINE_MODULES


def test_every_process_of_vllm_searches_for_garbage_less_often():
    command = [sys.executable, "-c", "import gc; print(*gc.get_threshold())"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ENGINE_MODULES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "50000 20 100"
