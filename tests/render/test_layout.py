"""Each path, unit name and port of the host is written in render/layout.py, and nowhere else in the product."""

import ast
import re

import pytest
from pulumi_vllm.render import layout, package_files

import stacks

OURS = re.compile(
    r"/etc/pulumi-vllm|/usr/local/lib/pulumi-vllm|/var/lib/(pulumi-)?vllm|/run/pulumi-vllm(?!-local)|/opt/vllm|(?<!v1)(?<!api)/models\b"
    r"|\bmodels\.mount\b|\bvllm(-\w+)?\.service\b|\bhaproxy\.service\b|\b1F40\b|\b127\.0\.0\.1:(443|8000|8405)\b"
)
WRITTEN_HERE = ("plan/host_paths.py", "render/layout.py")
ELSEWHERE = {
    "host/probe_script.py": "runs on the host with the host's bare Python, so it imports nothing of the product",
    "client/served_model.py": "asks the API's route /models",
    "client/client_checks.py": "asks the same route",
    "component/mocks.py": "shows one file as an example",
    "component/generated.py": "holds descriptions of resources for a person",
}
PRODUCT = stacks.ROOT / "components/pulumi_vllm"


def literals(source):
    """String literals other than docstrings, with their lines."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_product_writes_host_paths_and_units_once():
    found = [
        f"{path.relative_to(PRODUCT)}:{line}: {text.strip()[:80]!r}"
        for path in sorted(PRODUCT.rglob("*.py"))
        if str(path.relative_to(PRODUCT)) not in {*WRITTEN_HERE, *ELSEWHERE}
        for line, text in literals(path.read_text())
        if OURS.search(text)
    ]
    assert found == [], "import these from render/layout.py"


@pytest.mark.parametrize("path", sorted(package_files.templates().rglob("*.j2")), ids=lambda path: path.name)
def test_templates_take_host_paths_and_units_from_the_layout(path):
    assert [line for line in path.read_text().splitlines() if OURS.search(line)] == []


def test_host_programs_agree_with_the_layout():
    """They run with the host's bare Python, so each default path stands in them once more."""
    known = {value for value in vars(layout).values() if isinstance(value, str)}
    for path, text in package_files.programs().items():
        for line, literal in literals(text):
            if OURS.search(literal) and " " not in literal:
                assert literal in known, f"{path}:{line}: {literal} is not in render/layout.py"


def test_the_mount_unit_is_named_after_the_mount_point():
    assert layout.MODELS.strip("/").replace("/", "-") + ".mount" == layout.MOUNT_UNIT


def test_the_engine_address_in_the_sockets_table():
    assert layout.ENGINE_IN_PROC_NET_TCP == "0100007F:1F40"
