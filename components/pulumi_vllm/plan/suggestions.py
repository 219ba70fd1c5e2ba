"""Suggests the known word that a misspelt one probably means."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown word: the most similar known word, or the list of all of them."""
    import difflib  # noqa: PLC0415 (only an error needs it; it takes 7 ms of every `pulumi-vllm plan`)

    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(words)}"
