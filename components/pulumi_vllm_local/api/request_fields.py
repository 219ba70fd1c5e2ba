"""The cloud, the body, the team and the page of a request to the simulated API."""

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
    """The records, the lifecycle of the machines, and the faults that were ordered."""

    store: Store
    lifecycle: Lifecycle
    faults: Faults = field(default_factory=Faults)
    pending_names: set[str] = field(default_factory=set)

    def refuse_stock(self, offer: Offer) -> None:
        """Refuse a create if the offer is out of stock; the listing never shows that."""
        if self.faults.market("stock", offer.offer_id):
            name = offer.gpu_type.replace("_", "-")
            message = f"Not Enough Stock of {name}. Unable to launch virtual-machines."
            raise Refusal(400, {"error": "Bad Request", "message": message})

    def withdrawn(self, offer: Offer) -> bool:
        """Return whether the offer was withdrawn after it was listed."""
        if self.faults.market("gone", offer.offer_id):
            offer.gone = True
        return offer.gone

    def price(self, offer: Offer) -> float:
        """Return the billed price, which may differ from the listed one."""
        changed = self.faults.market("price", offer.offer_id)
        return changed.price if changed and changed.price is not None else offer.price


def cloud_of(request: Request) -> Cloud:
    """Return the cloud that serves a request."""
    cloud: Cloud = request.app.state.cloud
    return cloud


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise invalid("Request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise invalid("Request body must be an object")
    return body


def team_of(cloud: Cloud, body: dict[str, Any]) -> str:
    """Return the team id, which is optional in the documentation and required by the live service."""
    team = body.get("teamId")
    if not team:
        raise Refusal(400, {"error": "Team ID is required for authenticated deployments"})
    if team != cloud.store.team_id:
        raise envelope(403, "You are not a member of this team", "FORBIDDEN")
    return str(team)


def page_of(request: Request, limit: int) -> tuple[int, int]:
    """Return the page number and the page size of a request."""

    def number(name: str, default: int) -> int:
        text = request.query_params.get(name, str(default))
        if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
            raise invalid("Input payload validation failed", field=name)
        return int(text)

    return number("page", 1), number("limit", limit)


def paged(name: str, items: list[Any], page: int, limit: int) -> dict[str, Any]:
    """Return one page of items with the totals."""
    total = len(items)
    return {
        name: items[(page - 1) * limit : page * limit],
        "total": total,
        "page": page,
        "limit": limit,
        "totalPages": -(-total // limit),
    }
