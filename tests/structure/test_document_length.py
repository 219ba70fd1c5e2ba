"""Documents stay short enough to be read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = (
    "reference/stack-file",
    "reference/faults",
    "reference/drift",
    "reference/clients",
    "explanation/performance",
)


def test_the_readme_has_at_most_90_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_documents_for_users_are_short():
    """One page per task, each read in some minutes. The total leaves room for the tasks of running a server."""
    docs = ROOT / "docs"
    pages = set(docs.rglob("*.md")) - {docs / f"{name}.md" for name in GENERATED}
    pages |= {ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")}
    words = {str(page.relative_to(ROOT)): len(page.read_text().split()) for page in pages}
    assert {name: count for name, count in words.items() if count > 1600} == {}
    assert sum(words.values()) <= 15_000
