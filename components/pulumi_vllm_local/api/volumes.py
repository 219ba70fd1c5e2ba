"""Volumes in the simulated API: of their two ids only the handle works, and attaching may restart a machine."""

from __future__ import annotations

import asyncio
import re
import secrets
import string
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from pulumi_vllm_local.api.deployments import find as find_deployment
from pulumi_vllm_local.api.records import Deployment, Volume
from pulumi_vllm_local.api.refusals import Refusal, invalid, not_found
from pulumi_vllm_local.api.request_fields import body_of, cloud_of, page_of, paged
from pulumi_vllm_local.api.store import new_id

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.requests import Request

    from pulumi_vllm_local.api.profiles import Profile
    from pulumi_vllm_local.api.records import Attachment
    from pulumi_vllm_local.api.request_fields import Cloud

_NAME = re.compile(r"[a-z0-9_-]{1,60}")
_MAX_GB = 10_000


def _find(cloud: Cloud, text: str) -> Volume:
    """Return the volume with a handle; the id works only where the profile of the provider says so."""
    by_id = next((item for item in cloud.store.volumes.values() if item.id == text), None)
    if by_id is not None and not cloud.store.profile(by_id.provider).accepts_volume_id:
        by_id = None
    found = cloud.store.volumes.get(text) or by_id
    if found is None or found.deleting:
        raise not_found("Volume")
    return found


def _profile(cloud: Cloud, provider: str | None) -> Profile:
    profile = cloud.store.profiles.get(provider or "")
    if profile is None or profile.volume is None:
        raise invalid(f"Provider {provider} has no volumes", field="provider")
    return profile


def _handle(provider: str) -> str:
    if provider != "spheron-es":
        return str(uuid.uuid4())
    letters = string.ascii_lowercase + string.digits
    return "computefilesystem-" + "".join(secrets.choice(letters) for _ in range(17))


async def create(request: Request) -> JSONResponse:
    """Create an empty volume."""
    cloud, body = cloud_of(request), await body_of(request)
    store = cloud.store
    profile = _profile(cloud, body.get("provider"))
    name, size, region = str(body.get("name") or ""), body.get("sizeInGb"), body.get("region")
    if not _NAME.fullmatch(name):
        raise invalid("Input payload validation failed", field="name")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_GB:
        raise invalid("Input payload validation failed", field="sizeInGb")
    if region not in profile.volume_regions:
        raise invalid("Input payload validation failed", field="region", allowed=list(profile.volume_regions))
    if any(item.name == name for item in store.volumes.values()):
        raise Refusal(
            400, {"error": "Bad Request", "message": f"400 Bad Request - filesystem already exists: {name}"}
        )
    target = find_deployment(cloud, str(body["deploymentId"])) if body.get("deploymentId") else None
    volume = Volume(
        id=new_id(), handle=_handle(profile.name), name=name, team_id=store.team_id, provider=profile.name,
        region=str(region), size_gb=size, hourly_rate=profile.usd_per_gb_hour or 0.0,
        created_at=store.clock.now(),
    )  # fmt: skip
    store.volumes[volume.handle] = volume
    store.save()
    await cloud.lifecycle.make_volume(volume)
    if target is not None:
        await _attach(cloud, volume, target)
    return JSONResponse(volume.view(), 201)


async def listing(request: Request) -> JSONResponse:
    """Return a page of volumes."""
    cloud = cloud_of(request)
    page, limit = page_of(request, 20)
    views = [item.view() for item in cloud.store.volumes.values() if not item.deleting]
    status = request.query_params.get("status")
    views = [view for view in views if status in (None, "all", view["status"])]
    return JSONResponse(paged("volumes", views, page, limit))


async def read(request: Request) -> JSONResponse:
    """Return one volume."""
    return JSONResponse(_find(cloud_of(request), request.path_params["id"]).view())


async def change(request: Request) -> JSONResponse:
    """Grow a volume where its provider allows that; no provider renames or shrinks volumes."""
    cloud, body = cloud_of(request), await body_of(request)
    volume = _find(cloud, request.path_params["id"])
    if not cloud.store.profile(volume.provider).volume_grows or set(body) != {"sizeInGb"}:
        raise invalid(f"Provider {volume.provider} does not support changing a volume")
    size = body["sizeInGb"]
    if not isinstance(size, int) or isinstance(size, bool) or not volume.size_gb <= size <= _MAX_GB:
        raise invalid("Input payload validation failed", field="sizeInGb")
    volume.size_gb = size
    cloud.store.save()
    if not await asyncio.to_thread(cloud.lifecycle.hardware.disks.grow, volume.handle, size):
        for deployment in map(cloud.store.deployments.get, volume.attachments):
            if deployment is not None and deployment.alive and deployment.machine == "up":
                work = _restart(cloud, deployment)
                cloud.lifecycle.start_work(work, deployment, f"growing volume {volume.name}")
    return JSONResponse(volume.view())


async def _restart(cloud: Cloud, deployment: Deployment) -> None:
    async with cloud.lifecycle.lock(deployment):
        await asyncio.to_thread(cloud.lifecycle.hardware.stop, deployment.id)
        await asyncio.to_thread(cloud.lifecycle.hardware.start, deployment.id)


async def delete(request: Request) -> JSONResponse:
    """Delete a volume; refused while the records have an attachment."""
    cloud = cloud_of(request)
    volume = _find(cloud, request.path_params["id"])
    if volume.attachments:
        raise invalid("Volume must be detached before it can be deleted")
    volume.deleting = True
    cloud.store.save()
    await cloud.lifecycle.drop_volume(volume)
    return JSONResponse({"success": True})


async def _pair(request: Request) -> tuple[Cloud, Volume, Deployment]:
    cloud, body = cloud_of(request), await body_of(request)
    volume = _find(cloud, request.path_params["id"])
    if not body.get("deploymentId"):
        raise invalid("Input payload validation failed", field="deploymentId")
    return cloud, volume, find_deployment(cloud, str(body["deploymentId"]))


async def attach(request: Request) -> JSONResponse:
    """Attach a volume to a running machine; a share restarts the machine after the response."""
    cloud, volume, deployment = await _pair(request)
    await _attach(cloud, volume, deployment)
    return JSONResponse(volume.view())


async def _attach(cloud: Cloud, volume: Volume, deployment: Deployment) -> None:
    profile = cloud.store.profile(volume.provider)
    if (volume.provider, volume.region) != (deployment.provider, deployment.region):
        place = f"{deployment.provider} {deployment.region}"
        raise invalid(f"Volume is in {volume.provider} {volume.region}, the deployment in {place}")
    if deployment.status != "running":
        raise invalid(f"Deployment is {deployment.status}, not running")
    if volume.attachments.get(deployment.id) == "device":
        return
    others = [item for item in volume.attachments if item != deployment.id]
    if others and not profile.many_writers:
        raise invalid(f"Volume is already attached to deployment {others[0]}", attachedTo=others)
    here = [item for item in cloud.store.attached(deployment.id) if item is not volume]
    if profile.volumes_per_machine is not None and len(here) >= profile.volumes_per_machine:
        raise invalid("This instance cannot take another volume")
    before = dict(volume.attachments)
    volume.attachments[deployment.id] = "device"
    cloud.store.save()
    work = cloud.lifecycle.attach(deployment, volume)
    if profile.attach_restarts:
        cloud.lifecycle.start_work(work, deployment, f"attaching volume {volume.name}")
    else:
        await _before_response(cloud, volume, before, work)


async def detach(request: Request) -> JSONResponse:
    """Detach a volume; for a machine that is gone, this clears the stale record."""
    cloud, volume, deployment = await _pair(request)
    kind = volume.attachments.get(deployment.id)
    if kind is None:
        raise invalid("Volume is not attached to this deployment")
    before = dict(volume.attachments)
    del volume.attachments[deployment.id]
    cloud.store.save()
    if kind == "device" and deployment.machine == "up" and deployment.alive:
        restarts = cloud.store.profile(volume.provider).attach_restarts
        # Detaching a share restarts the machine, which unmounts it. Detaching a mounted block disk is refused.
        work = cloud.lifecycle.detach(deployment, volume, force=restarts)
        if restarts:
            cloud.lifecycle.start_work(work, deployment, f"detaching volume {volume.name}")
        else:
            await _before_response(cloud, volume, before, work)
    return JSONResponse(volume.view())


async def _before_response(
    cloud: Cloud, volume: Volume, before: dict[str, Attachment], work: Coroutine[Any, Any, None]
) -> None:
    """Finish the work before the response; if it fails, restore the record."""
    try:
        await work
    except Exception as error:
        volume.attachments = before
        cloud.store.save()
        raise invalid(f"400 Bad Request - {error}") from error


async def pricing(request: Request) -> JSONResponse:
    """Return the price in USD per GB and hour."""
    profile = _profile(cloud_of(request), request.query_params.get("provider"))
    return JSONResponse({"provider": profile.name, "hourlyRatePerGb": profile.usd_per_gb_hour})


async def regions(request: Request) -> JSONResponse:
    """Return the regions in which a provider has volumes."""
    cloud = cloud_of(request)
    profile = _profile(cloud, request.query_params.get("provider", "voltage-park"))
    with_offers = {offer.region for offer in cloud.store.offers if offer.provider == profile.name}
    items = [
        {
            "id": region,
            "name": region,
            "hasGpuOffers": region in with_offers,
            "minSizeGb": 1,
            "maxSizeGb": _MAX_GB,
            "hourlyRatePerGb": profile.usd_per_gb_hour,
        }
        for region in profile.volume_regions
    ]
    return JSONResponse({"hasAnyOffers": bool(with_offers), "regions": items})


# The two static paths come first, because {id} would match them.
ROUTES = [
    Route("/api/volumes/pricing", pricing, methods=["GET"]),
    Route("/api/volumes/regions", regions, methods=["GET"]),
    Route("/api/volumes", create, methods=["POST"]),
    Route("/api/volumes", listing, methods=["GET"]),
    Route("/api/volumes/{id}", read, methods=["GET"]),
    Route("/api/volumes/{id}", change, methods=["PATCH"]),
    Route("/api/volumes/{id}", delete, methods=["DELETE"]),
    Route("/api/volumes/{id}/attach", attach, methods=["POST"]),
    Route("/api/volumes/{id}/detach", detach, methods=["POST"]),
]
