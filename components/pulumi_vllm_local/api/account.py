"""Offers, SSH keys, balance and teams in the simulated API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from pulumi_vllm_local.api import offers
from pulumi_vllm_local.api.records import SshKey
from pulumi_vllm_local.api.refusals import invalid, not_found
from pulumi_vllm_local.api.request_fields import body_of, cloud_of, page_of, paged
from pulumi_vllm_local.api.store import new_id

if TYPE_CHECKING:
    from starlette.requests import Request

    from pulumi_vllm_local.api.request_fields import Cloud

_KEY_KINDS = ("ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "sk-ssh-ed25519", "sk-ecdsa-sha2-")


async def providers(request: Request) -> JSONResponse:
    """Return a bare array of provider names."""
    return JSONResponse(
        sorted({offer.provider for offer in cloud_of(request).store.offers if not offer.gone})
    )


async def gpu_offers(request: Request) -> JSONResponse:
    """Return offers grouped by GPU; `limit` counts groups."""
    query, cloud = request.query_params, cloud_of(request)
    page, limit = page_of(request, 10)
    found = offers.groups(cloud.store.offers, query.get("instanceType"), query.get("search"))
    keys = {"lowestPrice": "lowestPrice", "highestPrice": "highestPrice", "averagePrice": "averagePrice"}
    column = keys.get(query.get("sortBy", ""), "popularity")
    found.sort(key=lambda group: group[column], reverse=query.get("sortOrder") == "desc")
    return JSONResponse(paged("data", found, page, limit))


def _key(cloud: Cloud, key_id: str) -> SshKey:
    found = cloud.store.keys.get(key_id)
    if found is None:
        raise not_found("SSH key")
    return found


async def ssh_keys(request: Request) -> JSONResponse:
    """Return a bare array without temporary keys."""
    keys = cloud_of(request).store.keys.values()
    return JSONResponse([key.view() for key in keys if not key.temporary])


async def create_ssh_key(request: Request) -> JSONResponse:
    """Register a public key."""
    cloud, body = cloud_of(request), await body_of(request)
    name, text = str(body.get("name") or ""), str(body.get("publicKey") or "").strip()
    if not name:
        raise invalid("Input payload validation failed", field="name")
    if not text.startswith(_KEY_KINDS):
        raise invalid("Input payload validation failed", field="publicKey")
    if any(key.name == name for key in cloud.store.keys.values() if not key.temporary):
        raise invalid(f"An SSH key named {name} already exists", field="name")
    key = SshKey(new_id(), name, text, cloud.store.team_id, cloud.store.clock.now())
    cloud.store.keys[key.id] = key
    cloud.store.save()
    return JSONResponse(key.view(), 201)


async def read_ssh_key(request: Request) -> JSONResponse:
    """Return one key."""
    return JSONResponse(_key(cloud_of(request), request.path_params["id"]).view())


async def delete_ssh_key(request: Request) -> JSONResponse:
    """Delete a key; machines that have it keep it."""
    cloud = cloud_of(request)
    key = _key(cloud, request.path_params["id"])
    del cloud.store.keys[key.id]
    cloud.store.save()
    return JSONResponse({"success": True})


async def balance(request: Request) -> JSONResponse:
    """Return the balance of each team in USD."""
    store = cloud_of(request).store
    store.bill()
    team = {
        "teamId": store.team_id,
        "teamName": "Local",
        "balance": round(store.balance, 4),
        "isCurrentTeam": True,
        "role": "owner",
    }
    return JSONResponse({"teams": [team], "currency": "USD"})


async def teams(request: Request) -> JSONResponse:
    """Return the only team."""
    return JSONResponse(
        {"teams": [{"id": cloud_of(request).store.team_id, "name": "Local", "role": "owner"}]}
    )


ROUTES = [
    Route("/api/providers", providers, methods=["GET"]),
    Route("/api/gpu-offers", gpu_offers, methods=["GET"]),
    Route("/api/ssh-keys", ssh_keys, methods=["GET"]),
    Route("/api/ssh-keys", create_ssh_key, methods=["POST"]),
    Route("/api/ssh-keys/{id}", read_ssh_key, methods=["GET"]),
    Route("/api/ssh-keys/{id}", delete_ssh_key, methods=["DELETE"]),
    Route("/api/balance", balance, methods=["GET"]),
    Route("/api/teams", teams, methods=["GET"]),
]
