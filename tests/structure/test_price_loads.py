"""A price of tokens names the load that it holds for."""

import re
from pathlib import Path

import pytest
from pulumi_vllm.cli import main

ROOT = Path(__file__).parents[2]
PRICE = re.compile(r"\$[^|]{0,12}per million|\$/M")
PRINTED = re.compile(rf"{PRICE.pattern}|usd_per_million_(in|out)put")
LOAD = re.compile(r"\b512( tokens)? in(,| and) 256( tokens)? out\b")
WRITTEN = (
    "README.md",
    "docs/**/*.md",
    "stacks/*.yaml",
    "examples/**/*.md",
    "examples/**/*.yaml",
    "policy/*.md",
)


def without_load(paragraphs: list[str], price: re.Pattern[str] = PRICE) -> list[str]:
    return [one for one in paragraphs if price.search(one) and not LOAD.search(one)]


@pytest.mark.parametrize(
    "path", sorted(str(path.relative_to(ROOT)) for pattern in WRITTEN for path in ROOT.glob(pattern))
)
def test_written_prices_name_their_load(path):
    text = (ROOT / path).read_text()
    if path.endswith(".yaml"):
        text = "\n".join(line.partition("#")[2] for line in text.splitlines())
    assert without_load(re.split(r"\n *\n|\n\* ", text)) == []


def test_prices_of_the_changelog_name_their_load():
    assert without_load((ROOT / "CHANGELOG.md").read_text().split("\n* ")) == []


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "spheron-h200-1x-fp8"],
        ["plan", "spheron-h200-1x-fp8", "--set", "concurrency=16", "--set", "precision=nvfp4"],
        ["plan", "spheron-h200-1x-fp8", "spheron-h100-2x-fp8"],
        ["plan", "spheron-h200-2x-fp8-batch", "--json"],
        ["recommend", "--model", "mistral-small-4", "--context", "32Ki", "--concurrency", "64", "--offline"],
        ["upgrade", "spheron-h200-1x-fp8", "--to", "0.26.0"],
        ["upgrade", "spheron-h100-2x-fp8", "--to", "0.33.0"],
        ["upgrade", "spheron-h100-2x-fp8", "--to", "0.33.0", "--json"],
    ],
)
def test_printed_prices_name_their_load(capsys, words):
    assert main(words) == 0
    shown = capsys.readouterr().out
    # A title and the indented lines below it are one paragraph. JSON and a table name the load once.
    whole = "--json" in words or words[0] == "recommend" or len(words) == 3
    paragraphs = [shown] if whole else re.split(r"\n(?! )", shown)
    assert PRINTED.search(shown)
    assert without_load(paragraphs, PRINTED) == []
