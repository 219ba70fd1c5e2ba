"""What handlers of the simulated API share: the cloud behind a request, its body, its team, its market."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local.api.faults import Faults
from pulumi_vllm_local.api.refusals import Refusal, envelope, invalid

if TYPE_CHECKING:
    from starlette.requests import Request

    from pulumi_vllm_local.api.lifecycle import Lifecycle
    from pulumi_vllm_local.api.offers import Offer
    from pulumi_vllm_local.api.store import Store


@dataclass(slots=True)
class Cloud:
    """Records, machines and faults."""

    store: Store
    lifecycle: Lifecycle
    faults: Faults = field(default_factory=Faults)
    pending_names: set[str] = field(default_factory=set)

    def refuse_stock(self, offer: Offer) -> None:
        """Out of stock shows only here, on the POST."""
        if self.faults.market("stock", offer.offer_id):
            name = offer.gpu_type.replace("_", "-")
            message = f"Not Enough Stock of {name}. Unable to launch virtual-machines."
            raise Refusal(400, {"error": "Bad Request", "message": message})

    def withdrawn(self, offer: Offer) -> bool:
        """Whether the offer goes in this very moment: it was listed, and the create no longer finds it."""
        if self.faults.market("gone", offer.offer_id):
            offer.gone = True
        return offer.gone

    def price(self, offer: Offer) -> float:
        """What this create is billed, which may differ from what was shown."""
        changed = self.faults.market("price", offer.offer_id)
        return changed.price if changed and changed.price is not None else offer.price


def cloud_of(request: Request) -> Cloud:
    """The cloud behind a request."""
    cloud: Cloud = request.app.state.cloud
    return cloud


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise invalid("Request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise invalid("Request body must be an object")
    return body


def team_of(cloud: Cloud, body: dict[str, Any]) -> str:
    """The team, which the documentation calls optional and the live service wants."""
    team = body.get("teamId")
    if not team:
        raise Refusal(400, {"error": "Team ID is required for authenticated deployments"})
    if team != cloud.store.team_id:
        raise envelope(403, "You are not a member of this team", "FORBIDDEN")
    return str(team)


def page_of(request: Request, limit: int) -> tuple[int, int]:
    """Page and page size of a request."""

    def number(name: str, otherwise: int) -> int:
        text = request.query_params.get(name, str(otherwise))
        if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
            raise invalid("Input payload validation failed", field=name)
        return int(text)

    return number("page", 1), number("limit", limit)


def paged(name: str, items: list[Any], page: int, limit: int) -> dict[str, Any]:
    """The envelope of a page."""
    total = len(items)
    return {
        name: items[(page - 1) * limit : page * limit],
        "total": total,
        "page": page,
        "limit": limit,
        "totalPages": -(-total // limit),
    }
