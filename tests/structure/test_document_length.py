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


def test_all_documents_for_users_have_at_most_12000_words():
    docs = ROOT / "docs"
    pages = set(docs.rglob("*.md")) - {docs / f"{name}.md" for name in GENERATED}
    pages |= {ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")}
    assert sum(len(page.read_text().split()) for page in pages) <= 12_000
