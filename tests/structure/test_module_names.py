"""Names of the modules that one run of the tests can import."""

import ast
import collections
import importlib.metadata
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
TESTS = (ROOT / "tests", ROOT / "lab/tests")
# What tests import by a name without a package, because its folder is put on the path for that.
IMPORTED = (
    "lab/fits",
    "lab/gpu",
    "lab/models",
    "policy",
    "templates/usr/local/lib/pulumi-vllm",
    "templates/usr/local/lib/pulumi-vllm/engine",
)
# pytest finds these by their path.
NAMED_BY_THEIR_PATH = {"conftest", "__main__"}


def modules():
    """Every module that is imported by its file's name alone."""
    files = [file for folder in TESTS for file in folder.rglob("*.py")]
    files += [file for folder in IMPORTED for file in (ROOT / folder).glob("*.py")]
    return [file for file in files if file.stem not in NAMED_BY_THEIR_PATH]


def test_no_two_modules_of_a_run_have_the_same_name():
    """The folders of several share one path, so the module that is found first would be taken for both."""
    names = collections.defaultdict(list)
    for file in modules():
        names[file.stem].append(str(file.relative_to(ROOT)))
    assert not [files for files in names.values() if len(files) > 1]


def test_no_module_has_the_name_of_a_library():
    libraries = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys()
    assert not [str(file.relative_to(ROOT)) for file in modules() if file.stem in libraries]


def test_no_test_module_is_imported():
    """It would be a second module beside the one that pytest made of its file. What tests share has its own file."""
    imported = []
    for file in (file for folder in TESTS for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            imported += [
                f"{file.relative_to(ROOT)}: {name}"
                for name in names
                if name.rpartition(".")[2].startswith("test_")
            ]
    assert not imported
