"""Controls of the simulator under /_sim: clock, reclaims, freezes, faults, options and the request log."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from pulumi_vllm_local.api.clock import iso
from pulumi_vllm_local.api.faults import Fault
from pulumi_vllm_local.api.refusals import invalid, not_found
from pulumi_vllm_local.api.request_fields import body_of, cloud_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from pulumi_vllm_local.api.records import Deployment
    from pulumi_vllm_local.api.request_fields import Cloud

_FIXED_OPTIONS = {"factor", "seed", "balance"}


def _find(cloud: Cloud, text: str) -> Deployment:
    """Return the active deployment with an id or name."""
    for deployment in cloud.store.deployments.values():
        if deployment.alive and text in (deployment.id, deployment.name):
            return deployment
    raise not_found(f"Active deployment {text}")


async def health(request: Request) -> JSONResponse:
    """Return the process id, the engine and the team."""
    cloud = cloud_of(request)
    return JSONResponse({"pid": os.getpid(), "engine": cloud.lifecycle.engine, "team": cloud.store.team_id})


async def state(request: Request) -> JSONResponse:
    """Return the whole state."""
    cloud = cloud_of(request)
    store = cloud.store
    store.bill()
    deployments = [
        store.view(item) | {"machine": item.machine, "address": item.address, "why": item.why}
        for item in store.deployments.values()
    ]
    return JSONResponse(
        {
            "now": iso(store.clock.now()),
            "factor": store.clock.factor,
            "engine": cloud.lifecycle.engine,
            "balance": round(store.balance, 4),
            "deployments": deployments,
            "volumes": [volume.view() for volume in store.volumes.values()],
            "sshKeys": [key.view() for key in store.keys.values() if not key.temporary],
            "faults": cloud.faults.listing(),
        }
    )


async def advance(request: Request) -> JSONResponse:
    """Move the clock forward by `seconds` virtual seconds."""
    cloud, body = cloud_of(request), await body_of(request)
    try:
        cloud.store.clock.advance(float(body.get("seconds", 0)))
    except (TypeError, ValueError) as error:
        raise invalid(f"advance: {error}") from error
    cloud.store.save()
    return JSONResponse({"now": iso(cloud.store.clock.now())})


async def reclaim(request: Request) -> JSONResponse:
    """Reclaim a machine as the provider does; with `?as=stopped` it ends up stopped."""
    cloud = cloud_of(request)
    deployment = _find(cloud, request.path_params["id"])
    status = request.query_params.get("as", "terminated-provider")
    if status not in {"terminated-provider", "stopped"}:
        raise invalid("reclaim: as must be terminated-provider or stopped")
    cloud.lifecycle.reclaim(deployment, status)
    return JSONResponse({"id": deployment.id, "name": deployment.name, "becomes": status}, 202)


async def pause(request: Request) -> JSONResponse:
    """Freeze a machine, so that it answers nothing."""
    cloud = cloud_of(request)
    deployment = _find(cloud, request.path_params["id"])
    await asyncio.to_thread(cloud.lifecycle.hardware.pause, deployment.id)
    return JSONResponse({"id": deployment.id, "name": deployment.name})


async def unpause(request: Request) -> JSONResponse:
    """Resume a frozen machine."""
    cloud = cloud_of(request)
    deployment = _find(cloud, request.path_params["id"])
    await asyncio.to_thread(cloud.lifecycle.hardware.unpause, deployment.id)
    return JSONResponse({"id": deployment.id, "name": deployment.name})


async def move(request: Request) -> JSONResponse:
    """Restart a machine with another address."""
    cloud = cloud_of(request)
    deployment = _find(cloud, request.path_params["id"])
    await cloud.lifecycle.move(deployment)
    return JSONResponse({"id": deployment.id, "name": deployment.name, "address": deployment.address})


async def fault(request: Request) -> JSONResponse:
    """Order a fault (POST), list the pending ones (GET), or clear them (DELETE)."""
    cloud = cloud_of(request)
    if request.method == "DELETE":
        cloud.faults.due.clear()
    elif request.method == "POST":
        try:
            cloud.faults.add(Fault.parse(await body_of(request)))
        except ValueError as error:
            raise invalid(str(error)) from error
    return JSONResponse(cloud.faults.listing())


async def offer(request: Request) -> JSONResponse:
    """Change price, maintenance or gone of the offers whose id matches the pattern `offer`."""
    cloud, body = cloud_of(request), await body_of(request)
    try:
        pattern = re.compile(str(body.get("offer", "")))
    except re.error as error:
        raise invalid(f"offer: {error}") from error
    found = [item for item in cloud.store.offers if pattern.search(item.offer_id)]
    for item in found:
        for name in ("price", "maintenance", "gone"):
            if name in body:
                setattr(item, name, body[name])
    return JSONResponse([item.listing() | {"gone": item.gone} for item in found])


async def profile(request: Request) -> JSONResponse:
    """Change fields in the profile of a provider."""
    cloud, body = cloud_of(request), await body_of(request)
    name = request.path_params["provider"]
    if name not in cloud.store.profiles:
        raise not_found(f"Provider {name}")
    try:
        cloud.store.profiles[name] = cloud.store.profiles[name].with_changes(body)
    except ValueError as error:
        raise invalid(str(error)) from error
    return JSONResponse({"provider": name, "changed": sorted(body)})


async def options(request: Request) -> JSONResponse:
    """Change limits and probabilities. `balance` sets the remaining balance, `api_key` the key until a restart."""
    cloud, body = cloud_of(request), await body_of(request)
    if "api_key" in body:
        cloud.store.api_key = str(body.pop("api_key"))
    if "balance" in body:
        cloud.store.balance = float(body.pop("balance"))
    wrong = sorted(set(body) - set(cloud.store.options.__dataclass_fields__) | set(body) & _FIXED_OPTIONS)
    if wrong:
        raise invalid(f"options: cannot set {', '.join(wrong)}")
    cloud.store.options = replace(cloud.store.options, **body)
    cloud.store.save()
    return JSONResponse({"changed": sorted(body)})


async def log(request: Request) -> JSONResponse:
    """Return the request log, without bodies and headers; DELETE also clears it."""
    rows: Any = request.app.state.requests
    shown = list(rows)
    if request.method == "DELETE":
        rows.clear()
    return JSONResponse(shown)


ROUTES = [
    Route("/_sim/health", health, methods=["GET"]),
    Route("/_sim/state", state, methods=["GET"]),
    Route("/_sim/advance", advance, methods=["POST"]),
    Route("/_sim/reclaim/{id}", reclaim, methods=["POST"]),
    Route("/_sim/pause/{id}", pause, methods=["POST"]),
    Route("/_sim/unpause/{id}", unpause, methods=["POST"]),
    Route("/_sim/move/{id}", move, methods=["POST"]),
    Route("/_sim/fault", fault, methods=["GET", "POST", "DELETE"]),
    Route("/_sim/offer", offer, methods=["POST"]),
    Route("/_sim/profile/{provider}", profile, methods=["POST"]),
    Route("/_sim/options", options, methods=["POST"]),
    Route("/_sim/log", log, methods=["GET", "DELETE"]),
]
