"""The routes that the gateway admits for a model: those of its tasks. Every other path is answered with 404."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

POST_ROUTES: Final = {
    "generate": (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/tokenize",
        "/detokenize",
    ),
    "embed": ("/v1/embeddings", "/pooling"),
    "score": ("/score", "/rerank"),
    "transcription": ("/v1/audio/transcriptions",),
}
"""Task of a model, as vLLM names it → the routes that it adds."""

MODELS: Final = "/v1/models"

MESSAGES: Final = ("/v1/messages", "/v1/messages/count_tokens")
"""Routes whose clients send their key as `x-api-key`. They also read the list of models."""


def post_routes(tasks: Iterable[str]) -> tuple[str, ...]:
    """Routes that take a request body, for a model with these tasks."""
    return tuple(route for task in tasks for route in POST_ROUTES[task])


def get_routes(names: Iterable[str]) -> tuple[str, ...]:
    """Routes without a body, for a model with these names. Clients differ in how they write `/` and `:` in a path."""
    spellings: list[str] = []
    for name in names:
        escaped = name.replace(":", "%3A")
        spellings += [name, name.replace("/", "%2F"), escaped, escaped.replace("/", "%2F")]
    return (MODELS, *(f"{MODELS}/{spelling}" for spelling in dict.fromkeys(spellings)))
