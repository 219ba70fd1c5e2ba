"""Text that a user reads has none of the words that the glossary in ARCHITECTURE.md replaced.

Read are the templates, the documents, and every string literal of the packages: messages, help, descriptions of
resources and properties, docstrings.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLACED = {
    r"doors?": "gateway",
    r"gates?": "readiness check",
    r"pictures?": "image",
    r"stand-ins?": "fake engine",
    r"waive[drs]?": "ignore",
    r"given certificates?": "custom certificate",
    r"mistakes?": "error",
    r"told": "reported",
    r"said": "reported",
    r"seen": "observed",
    r"purse": "account, budget",
    r"carried": "warm start",
    r"guests?": "host",
    r"(?:house|(?:this|plan|render|cloud|host|provider) room|rooms)": "package, module",
    r"lets? (?:\w+ )?go": "delete, release",
}
"""Regular expression of a replaced word, and what to write."""

WORDS = [(re.compile(rf"\b{word}\b", re.IGNORECASE), better) for word, better in REPLACED.items()]

EXCEPTIONS = {
    **dict.fromkeys(
        (("docs/reference/faults.md", r"lets? (?:\w+ )?go"), ("docs/reference/faults.md", "guests?")),
        "messages as recorded by the last run of tests/e2e/fault_table.py, which takes an hour and a half",
    ),
    ("components/pulumi_vllm_local/", "guests?"): "in the local cloud a guest is a container",
    ("components/pulumi_vllm_local/tiny_model/weights.py", "gates?"): "the name of a tensor in MoE weights",
    **dict.fromkeys(
        (
            ("components/pulumi_vllm/plan/tensor_groups.py", "gates?"),
            ("components/pulumi_vllm_local/hub/published_models.py", "gates?"),
        ),
        "the name of a tensor in MoE weights",
    ),
    (
        "components/pulumi_vllm_local/tiny_model/weights.py",
        "pictures?",
    ): "a sentence of the tiny model, whose revision is pinned",
}
"""Path or directory and word: the reason why it may stay."""

AREAS = {
    "templates": ("templates/**/*",),
    "render": ("components/pulumi_vllm/render/**/*.py",),
    "component": ("components/pulumi_vllm/component/**/*.py",),
    "spheron": ("components/pulumi_vllm/spheron/**/*.py",),
    "plan": ("components/pulumi_vllm/plan/**/*.py",),
    "provider": ("components/pulumi_vllm/provider/**/*.py",),
    "host": ("components/pulumi_vllm/host/**/*.py",),
    "client": ("components/pulumi_vllm/client/**/*.py",),
    "cli": ("components/pulumi_vllm/cli/**/*.py",),
    "local cloud": ("components/pulumi_vllm_local/**/*.py",),
    "documents": ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/**/*.md"),
    "changelog": ("CHANGELOG.md",),
}


def strings_of_python(text: str) -> list[tuple[int, str]]:
    """Lines and texts of all string literals."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def texts(path: Path) -> list[tuple[int, str]]:
    """Lines and texts of a file that a user may read."""
    text = path.read_text()
    if path.suffix == ".py" or text.startswith("#!/usr/bin/python3"):
        return strings_of_python(text)
    if path.name == "CHANGELOG.md":
        text = text.split("\n## [0", maxsplit=1)[0]
    return list(enumerate(text.splitlines(), 1))


def replaced_words(path: Path, root: Path = ROOT) -> list[str]:
    """Every replaced word in a file, with its line and the word to use."""
    name = str(path.relative_to(root))
    return [
        f"{name}:{line + text.count(chr(10), 0, match.start())}: {match[0]!r}, write {better!r}"
        for line, text in texts(path)
        for word, better in WORDS
        for match in word.finditer(text)
        if not any(name.startswith(place) and rf"\b{stays}\b" == word.pattern for place, stays in EXCEPTIONS)
    ]


@pytest.mark.parametrize("area", sorted(AREAS))
def test_user_visible_text_has_no_replaced_word(area: str) -> None:
    files = sorted(
        path
        for pattern in AREAS[area]
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert [found for path in files for found in replaced_words(path)] == []


def test_a_replaced_word_is_found(tmp_path: Path) -> None:
    program = tmp_path / "drain"
    program.write_text('#!/usr/bin/python3\n"""First line.\n\nThe Gates open."""\ndoor = "two mistakes"\n')
    assert replaced_words(program, tmp_path) == [
        "drain:4: 'Gates', write 'readiness check'",
        "drain:5: 'mistakes', write 'error'",
    ]
