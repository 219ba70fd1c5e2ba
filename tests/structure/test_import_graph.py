"""Rules about imports that import-linter's contracts in pyproject.toml cannot express."""

import ast
import collections
import pathlib

import grimp
import pytest

COMPONENTS = pathlib.Path(__file__).parents[2] / "components"
TREES = ("pulumi_vllm", "pulumi_vllm_local")
GRAPH = grimp.build_graph(*TREES, include_external_packages=True)
OWN = sorted(module for module in GRAPH.modules if module.partition(".")[0] in TREES)
LIBRARIES = {
    "aiohttp": {"pulumi_vllm.client"},
    "asyncssh": {"pulumi_vllm.host"},
    "grpc": {"pulumi_vllm.provider"},
    "jinja2": {"pulumi_vllm.render"},
    "pulumi": {"pulumi_vllm.component", "pulumi_vllm.provider"},
    "pulumi_command": {"pulumi_vllm.component"},
    "requests": {"pulumi_vllm.spheron"},
    "ruamel": {"pulumi_vllm.cli"},
}
"""Library → the only packages that may import it."""

MAY_REPEAT = {"__init__", "__main__", "errors"}


def package(module):
    """`pulumi_vllm.host.ssh` → `pulumi_vllm.host`."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library):
    if library in GRAPH.modules:
        importers = {package(module) for module in GRAPH.find_modules_that_directly_import(library)}
        assert importers <= LIBRARIES[library]


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checking count."""
    circles = {
        frozenset({module, *both})
        for module in OWN
        if (both := GRAPH.find_upstream_modules(module) & GRAPH.find_downstream_modules(module))
    }
    assert not circles, "\n".join(sorted(" <-> ".join(sorted(circle)) for circle in circles))


@pytest.mark.parametrize("tree", TREES)
def test_no_two_modules_of_a_tree_have_the_same_file_name(tree):
    names = collections.defaultdict(list)
    for path in sorted((COMPONENTS / tree).rglob("*.py")):
        names[path.stem].append(str(path.relative_to(COMPONENTS)))
    assert not [paths for name, paths in names.items() if len(paths) > 1 and name not in MAY_REPEAT]


def unexplained(path):
    """Blocks of imports inside functions that have no comment, as FILE:LINE.

    The comment says why the import is not at the top. It stands in the line above the block, or behind an import.
    """
    text = path.read_text()
    lines = text.splitlines()
    functions = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    imports = sorted(
        {
            (node.lineno, node.end_lineno)
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
    )
    blocks = []
    for first, last in imports:
        if blocks and blocks[-1][1] + 1 == first:
            blocks[-1][1] = last
        else:
            blocks.append([first, last])
    for first, last in blocks:
        if not lines[first - 2].lstrip().startswith("#") and not any(
            "#" in line for line in lines[first - 1 : last]
        ):
            yield f"{path.relative_to(COMPONENTS)}:{first}"


def test_an_import_inside_a_function_has_a_reason():
    assert not [place for path in sorted(COMPONENTS.rglob("*.py")) for place in unexplained(path)]
