"""The argument schemas are what the real parsers of the real wheels take, and the locks of the engines import."""

import pathlib
import subprocess
import sys

import pytest
from pulumi_vllm.plan import catalogue, flags_schema

ENGINES = pathlib.Path(flags_schema.__file__).parent / "data/engines"


def test_every_engine_of_the_catalogue_has_its_arguments():
    assert set(catalogue.load().engines) <= set(flags_schema.versions())


@pytest.mark.all
@pytest.mark.parametrize("version", flags_schema.versions())
def test_the_parser_of_the_wheel_still_says_so(version):
    asked = [sys.executable, ENGINES / "arguments", "--stdout", version]
    text = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert text == (ENGINES / version / "arguments.json").read_text()


@pytest.mark.all
@pytest.mark.parametrize("version", sorted(catalogue.load().engines))
def test_what_is_locked_can_be_imported(version):
    tried = subprocess.run(
        [sys.executable, ENGINES / "imports", version], check=False, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr
