"""A persistent disk: it outlives machines, is kept on delete, and found again by its name."""

from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.names import physical_name
from pulumi_vllm.plan.offer_choice import NoOfferError, why_unmountable
from pulumi_vllm.provider.lifecycle.machine_offers import find_offers
from pulumi_vllm.provider.lifecycle.machine_state import pause_s
from pulumi_vllm.provider.plugin.resource import (
    Call,
    Failure,
    Property,
    Reading,
    Resource,
    UserError,
    Values,
    has_unknown,
)

if TYPE_CHECKING:
    from pulumi_vllm.plan.offer import Offer

# The API says "where the provider allows it" and no status; another refusal (a key, a limit) has its own remedy.
_CANT_GROW = frozenset({400, 404, 409, 422})
# How the API may refuse a disk that is attached: 400 was seen in client code, 409 is HTTP's own word for it.
_STILL_HELD = frozenset({400, 409})
_LETS_GO_WITHIN_LOOKS = 5


class Volume(Resource):
    """`vllm:spheron:Volume`."""

    token = "vllm:spheron:Volume"
    description = (
        "A persistent disk in the region of the machine it is for. Kept when deleted and adopted by name on the "
        "next create, unless keep is false. Bills while it exists."
    )
    inputs = {
        "sizeGb": Property(
            "integer", "Size in GB (10^9 bytes). It can grow where the provider allows it.", required=True
        ),
        "gpu": Property(
            "string",
            "GPU of the machine it is for, as in offers: H200, H100, CPU.",
            required=True,
            silent=True,
        ),
        "count": Property("integer", "GPUs of that machine.", required=True, silent=True),
        "billing": Property("string", "on-demand or spot; looks for the machine's region.", silent=True),
        "fallback": Property("string", "on-demand, where the machine may be that too.", silent=True),
        "region": Property("string", "Region; left out: where the cheapest such machine is.", silent=True),
        "maxUsdPerHour": Property("number", "Price ceiling of the machine, USD per hour.", silent=True),
        "keep": Property("boolean", "Keep the disk when the resource is deleted (default true)."),
    }
    outputs = {
        "handle": Property("string", "The provider's handle; attach and delete take this one."),
        "volumeName": Property("string", "Name at the cloud."),
        "provider": Property("string", "Who runs it; a machine must be of the same."),
        "placement": Property("string", "Region, as the cloud spells it."),
        "mountTag": Property("string", "virtiofs tag, where it is a share."),
        "usdPerHour": Property("number", "Price of the whole disk, USD per hour."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """A disk never shrinks."""
        new.setdefault("keep", True)
        before, after = (old or {}).get("sizeGb"), new.get("sizeGb")
        if isinstance(before, int) and isinstance(after, int) and after < before:
            reason = f"the disk has {before} GB and can't shrink; keep {before}, or rename the resource"
            return [Failure("sizeGb", reason)]
        if isinstance(after, int) and after < 1:
            return [Failure("sizeGb", f"{after} GB is no disk; at least 1")]
        return []

    async def preview(self, call: Call, new: Values) -> Values:
        """The disk that would be adopted: a wrong API key or a disk of somebody else is found before a dollar is."""
        name = self._name(call)
        found = await call.session.ask(call.session.cloud().volumes.find, name)
        if found is None:
            return {"volumeName": name, "usdPerHour": await self._price(call, new)}
        await self._refuse_stranger(call, found, new)
        return self._outputs(found, name)

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """The size and `keep` change in place, and the price with the size."""
        before, after, price = old.get("sizeGb"), new.get("sizeGb"), old.get("usdPerHour")
        if before == after or not before or not price:
            return {}
        return {"usdPerHour": None if has_unknown(after) else round(price / before * after, 6)}

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Grow the disk; what is on it stays."""
        outputs = {name: old.get(name) for name in self.outputs}
        if new["sizeGb"] == old.get("sizeGb"):
            return outputs
        from pulumi_vllm.spheron.errors import CloudError  # requests takes 0.1 s

        try:
            await call.session.ask(call.session.cloud().volumes.grow, old["handle"], new["sizeGb"])
        except CloudError as error:
            if error.status not in _CANT_GROW:
                raise
            raise UserError(
                f"{error}. The disk {old.get('volumeName')} keeps its {old.get('sizeGb')} GB and what is on it; set "
                "the size back, or move to a new disk: give the stack another name"
            ) from None
        found = await call.session.ask(call.session.cloud().volumes.find, str(old.get("volumeName")))
        return self._outputs(found, str(old.get("volumeName"))) if found else outputs

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Adopt the disk of our name, or make it where the machine can be had."""
        cloud = call.session.cloud()
        name = self._name(call)
        found = await call.session.ask(cloud.volumes.find, name)
        if found is None:
            offer, region = await self._place(call, new)
            async with call.session.critical():
                found = await call.session.ask(
                    cloud.volumes.create, name, new["sizeGb"], offer.provider, region
                )
        else:
            await self._refuse_stranger(call, found, new)
            await call.info(f"adopted the disk {name} ({found.size_gb} GB in {found.region})")
        return found.id, self._outputs(found, name)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Gone when the cloud no longer lists it."""
        for volume in await call.session.ask(call.session.cloud().volumes.list):
            if volume.id == resource_id and volume.status not in {"deleting", "deleted"}:
                live = {**inputs, "sizeGb": volume.size_gb}
                return Reading(self._outputs(volume, str(state.get("volumeName") or volume.name)), live)
        return None

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Keep it and say what it costs, or detach and remove it."""
        name = state.get("volumeName")
        if state.get("keep", True):
            price = state.get("usdPerHour")
            cost = f"; it bills ${price * 24:.2f} a day" if price else ""
            await call.info(f"kept the disk {name}{cost}. `pulumi-vllm sweep` lists it")
            return
        cloud = call.session.cloud()
        volume = await call.session.ask(cloud.volumes.find, str(name))
        if volume is None:
            return
        for instance in volume.attached_to:
            await call.session.ask(cloud.volumes.detach, volume.handle, instance, ignore_refusal=True)
        await self._remove(call, volume)

    async def _remove(self, call: Call, volume: Any) -> None:
        """A machine that has just gone may hold the disk a moment longer."""
        from pulumi_vllm.spheron.errors import CloudError

        for attempt in range(_LETS_GO_WITHIN_LOOKS):
            try:
                await call.session.ask(call.session.cloud().volumes.delete, volume.handle)
            except CloudError as error:
                if error.status not in _STILL_HELD:
                    raise
                refused = error
            else:
                return
            await call.sleep(pause_s(attempt))
        raise UserError(
            f"{refused}; detach the disk in the cloud's console, or run `pulumi destroy` again in some minutes"
        )

    def _name(self, call: Call) -> str:
        return physical_name(call.stack, call.name, call.urn)

    async def _place(self, call: Call, new: Values) -> "tuple[Offer, str]":
        """Return the best offer of a machine for this volume, and the region that both are in."""
        offer = (await find_offers(call, new, with_volume=True))[0]
        return offer, new.get("region") or offer.regions[0]

    async def _price(self, call: Call, new: Values) -> float | None:
        """Of a disk that is not made yet; None where the cloud tells no price, or has no such machine today."""
        from pulumi_vllm.spheron.errors import CloudError

        if has_unknown(new):
            return None
        try:
            offer, region = await self._place(call, new)
            each = await call.session.ask(
                call.session.cloud().volumes.usd_per_gb_hour, offer.provider, region
            )
        except (CloudError, NoOfferError):
            return None  # the machine's own preview says what is wrong
        return round(float(each) * float(new["sizeGb"]), 6)

    async def _refuse_stranger(self, call: Call, volume: Any, new: Values) -> None:
        region = None if has_unknown(new.get("region")) else new.get("region")
        if not volume.mountable:
            raise UserError(
                f"{call.name}: the disk {volume.name}: {why_unmountable(volume.provider, volume.region)}, and delete "
                "the disk or give the stack another name"
            )
        if volume.size_gb != new["sizeGb"] and not has_unknown(new["sizeGb"]):
            raise UserError(
                f"{call.name}: the disk {volume.name} has {volume.size_gb} GB, the stack wants {new['sizeGb']}; "
                f"set the size to {volume.size_gb} GB, or delete the disk"
            )
        if region and volume.region and region != volume.region:
            raise UserError(
                f"{call.name}: the disk {volume.name} is in {volume.region}, the stack wants {region}; "
                f"set the region to {volume.region}, or delete the disk"
            )
        for machine in volume.attached_to:
            holder = await call.session.ask(call.session.cloud().instances.get, machine)
            if holder is not None and not holder.terminal:
                raise UserError(
                    f"{call.name}: the disk {volume.name} is attached to {holder.name} ({machine}), which is "
                    f"{holder.status}; a disk has one writer. Destroy that stack, or give this one another name"
                )

    def _outputs(self, volume: Any, name: str) -> Values:
        price = volume.usd_per_gb_hour
        return {
            "handle": volume.handle,
            "volumeName": name,
            "provider": volume.provider,
            "placement": volume.region,
            "mountTag": volume.mount_tag,
            "usdPerHour": round(price * volume.size_gb, 6) if price else None,
        }
