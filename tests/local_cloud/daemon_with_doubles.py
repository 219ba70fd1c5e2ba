"""The process of the local cloud, with machines in memory."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

from pulumi_vllm_local import daemon


def _double(_state_dir, _images):
    spec = importlib.util.spec_from_file_location("doubles", Path(__file__).with_name("conftest.py"))
    doubles = importlib.util.module_from_spec(spec)
    sys.modules["doubles"] = doubles
    spec.loader.exec_module(doubles)
    machines = doubles.Machines()
    machines.gateway = ""
    return machines


logging.basicConfig(level=logging.INFO)
sys.exit(daemon.run(Path(sys.argv[1]), _double))
