"""Deployments in the simulated API: create with the live order of checks, read, rename, terminate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from pulumi_vllm_local.api.clock import iso
from pulumi_vllm_local.api.records import ACTIVE, TERMINAL, Deployment, SshKey
from pulumi_vllm_local.api.refusals import (
    Refusal,
    already_gone,
    envelope,
    invalid,
    not_found,
    too_early,
)
from pulumi_vllm_local.api.request_fields import body_of, cloud_of, team_of
from pulumi_vllm_local.api.store import new_id

if TYPE_CHECKING:
    from starlette.requests import Request

    from pulumi_vllm_local.api.offers import Offer
    from pulumi_vllm_local.api.request_fields import Cloud

_NAME_LENGTH = 50


def find(cloud: Cloud, deployment_id: str) -> Deployment:
    """Return the deployment with an id."""
    found = cloud.store.deployments.get(deployment_id)
    if found is None:
        raise not_found("Deployment")
    return found


async def create(request: Request) -> JSONResponse:
    """Create a deployment; the response comes after the latency of the provider and after the record is saved."""
    cloud, body = cloud_of(request), await body_of(request)
    store = cloud.store
    team_of(cloud, body)
    if "gpuCount" not in body:
        raise Refusal(500, {"error": "Deployment validation failed: gpuCount: Path 'gpuCount' is required."})
    offer = _offer(cloud, body)
    key = _key(cloud, body)
    name = _name(cloud, body)
    if store.balance < store.options.balance_floor:
        message = f"Insufficient balance: {store.balance:.2f} USD"
        raise Refusal(400, {"error": "Bad Request", "message": message})
    profile = store.profile(offer.provider)
    handles = [str(handle) for handle in body.get("volumeIds") or []]
    for handle in handles:
        if handle not in store.volumes:
            raise Refusal(500, {"error": f"Volume {handle} not found"})
        if profile.volume is None:
            raise invalid(f"{offer.provider} has no volumes", volumeIds=handles)
        _check_volume(cloud, handle, offer)
    cloud.refuse_stock(offer)
    cloud.pending_names.add(name)
    try:
        await store.clock.sleep(profile.post_latency_s)
        deployment = _commit(cloud, body, offer, key, name)
        for handle in handles:
            kind = "device" if profile.attaches_at_create else "relation"
            store.volumes[handle].attachments[deployment.id] = kind  # type: ignore[assignment]
        store.save()
    finally:
        cloud.pending_names.discard(name)
    cloud.lifecycle.follow(deployment)
    return JSONResponse(store.view(deployment), 201)


def _offer(cloud: Cloud, body: dict[str, Any]) -> Offer:
    offers = [
        offer for offer in cloud.store.offers if offer.offer_id == body.get("offerId") and not offer.gone
    ]
    provider = body.get("provider")
    offer = next((item for item in offers if item.provider == provider), None)
    if offer is None or cloud.withdrawn(offer):
        raise invalid(f"Offer {body.get('offerId')} not found for provider {provider}", field="offerId")
    if body.get("gpuType") != offer.gpu_type:
        text = f"gpuType {body.get('gpuType')} does not match the offer; omit it or send {offer.gpu_type}"
        raise invalid(text, field="gpuType")
    checks: dict[str, tuple[Any, ...]] = {
        "gpuCount": (offer.gpu_count,),
        "region": (offer.region,),
        "operatingSystem": offer.operating_systems,
        "instanceType": (offer.instance_type,),
    }
    for field, allowed in checks.items():
        if body.get(field) not in allowed:
            raise invalid("Input payload validation failed", field=field, allowed=list(allowed))
    return offer


def _key(cloud: Cloud, body: dict[str, Any]) -> SshKey:
    store = cloud.store
    if body.get("sshKeyId"):
        known = store.keys.get(str(body["sshKeyId"]))
        if known is None:
            raise invalid("SSH key not found", field="sshKeyId")
        return known
    text = str(body.get("ssh_public_key") or "")
    if not text:
        raise invalid("Either sshKeyId or ssh_public_key is required", field="sshKeyId")
    key = SshKey(new_id(), "temporary", text, store.team_id, store.clock.now(), temporary=True)
    store.keys[key.id] = key
    return key


def _name(cloud: Cloud, body: dict[str, Any]) -> str:
    name = str(body.get("name") or f"instance-{new_id()[:8]}")
    if len(name) > _NAME_LENGTH:
        raise invalid("Input payload validation failed", field="name")
    taken = {item.name for item in cloud.store.deployments.values() if item.alive} | cloud.pending_names
    if name in taken:
        raise Refusal(
            400, {"error": "Bad Request", "message": "400 Bad Request - This name is not available"}
        )
    return name


def _check_volume(cloud: Cloud, handle: str, offer: Offer) -> None:
    volume = cloud.store.volumes[handle]
    if (volume.provider, volume.region) != (offer.provider, offer.region):
        raise invalid(f"Volume {handle} is in {volume.provider} {volume.region}", field="volumeIds")
    if volume.attachments:
        raise invalid(f"Volume {handle} is already attached", field="volumeIds")


def _commit(cloud: Cloud, body: dict[str, Any], offer: Offer, key: SshKey, name: str) -> Deployment:
    store, now = cloud.store, cloud.store.clock.now()
    sent = body.get("cloudInit")
    deployment = Deployment(
        id=new_id(), name=name, team_id=store.team_id, provider=offer.provider, offer_id=offer.offer_id,
        gpu_type=offer.gpu_type, gpu_count=offer.gpu_count, region=offer.region,
        operating_system=str(body["operatingSystem"]), instance_type=offer.instance_type,
        vcpus=offer.vcpus, memory_gb=offer.memory_gb, storage_gb=offer.storage_gb,
        hourly_rate=cloud.price(offer), ssh_key_id=key.id, public_key=key.public_key,
        created_at=now, billed_until=now,
        # Like the live service, accept and ignore a cloudInit that is not an object.
        cloud_init=sent if isinstance(sent, dict) else None,
    )  # fmt: skip
    store.deployments[deployment.id] = deployment
    store.save()
    return deployment


async def listing(request: Request) -> JSONResponse:
    """Return a bare array; `status` is active, inactive, all or a single status."""
    cloud, query = cloud_of(request), request.query_params
    wanted = query.get("status", "all")
    groups = {"active": ACTIVE, "inactive": TERMINAL, "all": ACTIVE + TERMINAL}
    statuses = groups.get(wanted, (wanted,))
    found = [
        item
        for item in cloud.store.deployments.values()
        if item.status in statuses and query.get("teamId", item.team_id) == item.team_id
    ]
    return JSONResponse([cloud.store.view(item) for item in found])


async def read(request: Request) -> JSONResponse:
    """Return one deployment, active or not."""
    cloud = cloud_of(request)
    cloud.store.bill()
    return JSONResponse(cloud.store.view(find(cloud, request.path_params["id"])))


async def rename(request: Request) -> JSONResponse:
    """Change the name; nothing else can be changed."""
    cloud, body = cloud_of(request), await body_of(request)
    deployment = find(cloud, request.path_params["id"])
    if set(body) != {"name"}:
        raise invalid("Input payload validation failed", field="name")
    if body["name"] != deployment.name:
        deployment.name = _name(cloud, body)
        cloud.store.save()
    return JSONResponse(cloud.store.view(deployment))


async def can_terminate(request: Request) -> JSONResponse:
    """Return whether a DELETE would be accepted now, with times in whole minutes."""
    cloud = cloud_of(request)
    deployment = find(cloud, request.path_params["id"])
    return JSONResponse(deployment.can_terminate(cloud.store.clock.now(), cloud.store.minimum_s()))


async def terminate(request: Request) -> JSONResponse:
    """Terminate a machine, unless its minimum run time has not passed or it is gone."""
    cloud = cloud_of(request)
    store, deployment = cloud.store, find(cloud, request.path_params["id"])
    now = store.clock.now()
    if deployment.status in {"terminated", "terminated-provider"}:
        raise already_gone(deployment.status)
    remaining = deployment.remaining_s(now, store.minimum_s())
    if remaining > 0 and deployment.status != "failed":
        raise too_early(math.ceil(remaining / 60), round(store.options.minimum_runtime_min))
    store.bill()
    deployment.status, deployment.stopped_at = "terminated", now
    store.save()
    cloud.lifecycle.wake(deployment)
    shown = {"id": deployment.id, "status": deployment.status, "stoppedAt": iso(now)}
    return JSONResponse({"message": "Instance destruction initiated", "deployment": shown})


async def kubernetes_versions(_: Request) -> JSONResponse:
    """Return the Kubernetes versions; no offer here has the add-on."""
    return JSONResponse({"versions": [{"version": "1.35", "available": False}]})


async def kubernetes_health(_: Request) -> JSONResponse:
    """Answer that there is no cluster."""
    raise envelope(404, "Cluster not found", "NOT_FOUND")


ROUTES = [
    Route("/api/deployments", create, methods=["POST"]),
    Route("/api/deployments", listing, methods=["GET"]),
    Route("/api/deployments/{id}", read, methods=["GET"]),
    Route("/api/deployments/{id}", rename, methods=["PATCH"]),
    Route("/api/deployments/{id}", terminate, methods=["DELETE"]),
    Route("/api/deployments/{id}/can-terminate", can_terminate, methods=["GET"]),
    Route("/api/kubernetes/versions", kubernetes_versions, methods=["GET"]),
    Route("/api/kubernetes/{id}/health", kubernetes_health, methods=["GET"]),
]
