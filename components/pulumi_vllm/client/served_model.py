"""Find the model that an endpoint serves and its abilities: from the endpoint, the plan and the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.errors import ClientError, printable
from pulumi_vllm.client.gateway_session import GatewaySession
from pulumi_vllm.plan import catalogue
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.evidence import recorded_flags
from pulumi_vllm.plan.memory import accepts_images

if TYPE_CHECKING:
    from pulumi_vllm.client.endpoint import Endpoint


@dataclass(frozen=True)
class ServedModel:
    """The model behind an endpoint. An ability is None where neither a plan nor the catalogue knows it."""

    name: str
    context: int | None
    vocabulary: int | None = None
    reasons: bool | None = None
    calls_tools: bool | None = None
    accepts_images: bool | None = None
    thinks: str | None = None
    """When it reasons: always, on request or never."""

    @property
    def in_catalogue(self) -> bool:
        """Whether it is a model of the catalogue, so that this package decides how it is served."""
        return self.vocabulary is not None


async def find_model(endpoint: Endpoint, wanted: str | None) -> ServedModel:
    """Ask the endpoint for its models. Take `wanted`, else the stack's model, else the only one.

    Raises:
        ClientError: nothing answers, the key is refused, or that model is not served.
    """
    async with GatewaySession(endpoint) as gateway:
        answer = await gateway.json("GET", "/models")
    try:
        rows = {str(row["id"]): dict(row) for row in answer["data"]}
    except (TypeError, KeyError, ValueError):
        raise ClientError(
            f"{endpoint.url}/models: is not a list of models; is this the API's address?"
        ) from None
    models = {str(row.get("root") or name) for name, row in rows.items()}  # one model may have several names
    name = wanted or endpoint.model or (next(iter(rows)) if len(models) == 1 else None)
    available = printable(", ".join(rows) or "none")
    if name is None:
        raise ClientError(f"{endpoint.url}: serves {available}; name one with --model")
    if name not in rows:
        raise ClientError(f"{endpoint.url}: {printable(name)} is not served here; it serves {available}")
    return _with_abilities(endpoint, name, rows[name])


def _with_abilities(endpoint: Endpoint, name: str, row: dict[str, Any]) -> ServedModel:
    length = row.get("max_model_len")
    context = length if isinstance(length, int) and length > 0 else None
    model = catalogue.load().models.get(name)
    flags = endpoint.plan.get("flags")
    if model is None and flags is not None and name in _served_names(flags):
        # A model of a file beside the stack file: its plan says what it can do.
        return ServedModel(
            name,
            context,
            endpoint.plan.get("vocabulary"),
            reasons="--reasoning-parser" in flags,
            calls_tools="--enable-auto-tool-choice" in flags,
            thinks=endpoint.plan.get("thinks"),
        )
    if model is None:
        return ServedModel(name, context)
    started = flags if flags is not None else [f"--{flag}" for flag, value in model.flags.items() if value]
    return ServedModel(
        name,
        context,
        model.dimensions.vocabulary,
        reasons="--reasoning-parser" in started,
        calls_tools="--enable-auto-tool-choice" in started,
        accepts_images=accepts_images(model.dimensions, EngineArguments.of(recorded_flags(started))),
        thinks=model.thinks,
    )


def _served_names(flags: list[str]) -> list[str]:
    """The names under which a plan's engine serves its model."""
    return str(recorded_flags(flags).get("served-model-name", "")).split()
