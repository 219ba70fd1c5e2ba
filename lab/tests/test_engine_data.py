"""The argument schemas are those of the wheels' own parsers, and the locked packages can be imported."""

import pathlib
import subprocess
import sys

import pytest
from pulumi_vllm.plan import catalogue, vllm_parser

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ROOT / "lab/engine"
ENGINES = ROOT / "components/pulumi_vllm/plan/data/engines"


@pytest.mark.all
@pytest.mark.parametrize("version", vllm_parser.versions())
def test_the_schema_is_that_of_the_wheels_parser(version):
    command = [sys.executable, PROGRAMS / "argument_schema.py", "--stdout", version]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text == (ENGINES / version / "arguments.json").read_text()


@pytest.mark.all
@pytest.mark.parametrize("version", sorted(catalogue.load().engines))
def test_the_locked_packages_can_be_imported(version):
    command = [sys.executable, PROGRAMS / "import_check.py", version]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
