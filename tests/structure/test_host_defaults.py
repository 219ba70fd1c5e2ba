"""A number that the plan gives a program on the host is not written a second time in the program."""

import ast
import re
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "templates"
PROGRAMS = TEMPLATES / "usr" / "local" / "lib" / "pulumi-vllm"
CONFIGS = {
    path.name.partition(".")[0]: path for path in (TEMPLATES / "etc" / "pulumi-vllm").glob("*.json.j2")
}
SCRIPTS = [
    path
    for path in PROGRAMS.iterdir()
    if path.is_file() and path.read_text().startswith("#!/usr/bin/python3")
]
WITH_CONFIG = sorted(CONFIGS.keys() & {path.name for path in SCRIPTS})


def number(value: ast.expr | None) -> float:
    """Return the value of a default such as 16 << 20, or 0 where it is no number."""
    allowed = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if value is None or not all(isinstance(node, allowed) for node in ast.walk(value)):
        return 0
    found = eval(ast.unparse(value))
    return found if isinstance(found, int | float) else 0


def numbers(name: str) -> dict[str, float]:
    """Return the fields of a program's Config whose default is a number other than 0."""
    tree = ast.parse((PROGRAMS / name).read_text())
    configs = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Config"]
    fields = [field for config in configs for field in config.body if isinstance(field, ast.AnnAssign)]
    return {ast.unparse(field.target): number(field.value) for field in fields if number(field.value)}


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_a_number_of_the_plan_has_no_default_in_the_program(name):
    given = set(re.findall(r'"(\w+)":', CONFIGS[name].read_text()))
    assert not given & numbers(name).keys()


def test_the_programs_have_numbers_of_their_own():
    """Otherwise the test above could not fail."""
    assert {"canary", "install", "preflight", "readiness", "weights"} <= set(WITH_CONFIG)
    assert numbers("canary")["dump_s"] == 5
    assert numbers("weights")["attempts"] == 8


@pytest.mark.parametrize("program", SCRIPTS, ids=lambda path: path.name)
def test_no_option_of_a_program_has_a_number_as_its_default(program):
    assert not re.findall(r"add_argument\([^)]*default=[\d.]+", program.read_text())
