"""Which model an endpoint serves and what is known of it: from the endpoint, the plan, the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.checks import Served
from pulumi_vllm.client.errors import ClientError, printable
from pulumi_vllm.client.http import Connection
from pulumi_vllm.plan import catalogue
from pulumi_vllm.plan.engine_arguments import accepts_images, pairs

if TYPE_CHECKING:
    from pulumi_vllm.client.endpoint import Endpoint


async def look(endpoint: Endpoint, wanted: str | None) -> Served:
    """Ask for the models; `wanted`, else the stack's, else the only one.

    Raises:
        ClientError: nobody answers, the key is refused, or that model is not served.
    """
    async with Connection(endpoint) as gateway:
        answer = await gateway.json("GET", "/models")
    try:
        rows = {str(row["id"]): dict(row) for row in answer["data"]}
    except (TypeError, KeyError, ValueError):
        raise ClientError(
            f"{endpoint.url}/models: is no list of models; is this the API's address?"
        ) from None
    name = wanted or endpoint.model or (next(iter(rows)) if len(rows) == 1 else None)
    there = printable(", ".join(rows) or "none")
    if name is None:
        raise ClientError(f"{endpoint.url}: serves {there}; name one with --model")
    if name not in rows:
        raise ClientError(f"{endpoint.url}: {printable(name)} is not served here; it serves {there}")
    return _known(endpoint, name, rows[name])


def _known(endpoint: Endpoint, name: str, row: dict[str, Any]) -> Served:
    told = row.get("max_model_len")
    context = told if isinstance(told, int) and told > 0 else None
    model = catalogue.load().models.get(name)
    if model is None:
        return Served(name, context)
    flags = endpoint.plan.get("flags")
    started = flags if flags is not None else [f"--{flag}" for flag, value in model.flags.items() if value]
    return Served(
        name,
        context,
        model.dimensions.vocabulary,
        thinks="--reasoning-parser" in started,
        calls_tools="--enable-auto-tool-choice" in started,
        sees=accepts_images(model.dimensions, pairs(started)),
    )
