"""Questions with a known answer, for models whose exact tokens are not known: damaged weights answer none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """A question, and a text that a right answer contains, whatever else it says."""

    prompt: str
    expected: str


ANSWER_CHECKS = (
    AnswerCheck("What is 17 + 25? Answer with the number only.", "42"),
    AnswerCheck("What is 12 * 12? Answer with the number only.", "144"),
    AnswerCheck("Answer with this word and nothing else: haberdashery", "haberdashery"),
    AnswerCheck("Answer with this word and nothing else: 7Qx29-Lm", "7Qx29-Lm"),
)
"""Two sums and two copies. A model that was trained to chat answers all of them; three right answers are enough."""
