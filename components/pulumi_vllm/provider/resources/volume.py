"""A persistent volume: it outlives instances, is kept when the resource is deleted, and is found by its name."""

from typing import TYPE_CHECKING

from pulumi_vllm.plan.names import is_of_resource, is_of_stack, physical_name
from pulumi_vllm.plan.offer_choice import NoOfferError, why_unmountable
from pulumi_vllm.provider.lifecycle.machine_offers import find_offers
from pulumi_vllm.provider.lifecycle.poll import API_PAUSES_S, PollTimeoutError, poll
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown
from pulumi_vllm.provider.plugin.resource import Failure, Kind, Property, Reading, Resource, Values
from pulumi_vllm.provider.resources.lost_state import STATE_LOST
from pulumi_vllm.spheron.errors import CloudError

if TYPE_CHECKING:
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.spheron.models import Instance as CloudInstance
    from pulumi_vllm.spheron.models import Volume as CloudVolume

# The API documents "where the provider allows it" and no status. Other refusals (key, rate) have their own remedy.
_CANNOT_GROW = frozenset({400, 404, 409, 422})
# A refusal while the volume is attached: client code shows 400; 409 is what HTTP defines for it.
_STILL_ATTACHED = frozenset({400, 409})
_RELEASED_WITHIN_S = 9.0
_PAUSES_S = API_PAUSES_S
_MACHINE = ("gpu", "count", "billing")


class Volume(Resource):
    """`vllm:spheron:Volume`."""

    token = "vllm:spheron:Volume"
    description = (
        "A persistent volume in the region of its instance. Unless keep is false, it is kept when the resource is "
        "deleted, and the next create adopts it by its name. Billed while it exists."
    )
    inputs = {
        "sizeGb": Property(
            "integer", "Size in GB (10^9 bytes). It can grow where the provider allows it.", required=True
        ),
        "gpu": Property(
            "string",
            "GPU of the machine that uses the volume, as in offers, such as H200, H100 or CPU.",
            required=True,
            silent=True,
            unreadable=True,
        ),
        "otherGpus": Property(
            "array",
            "Further GPUs that the machine may have, in order of preference.",
            silent=True,
            unreadable=True,
            of="string",
        ),
        "count": Property(
            "integer", "Number of GPUs of that machine.", required=True, silent=True, unreadable=True
        ),
        "billing": Property("string", "Billing of that machine: on-demand or spot.", silent=True),
        "fallback": Property(
            "string", "on-demand, if that machine may be rented on demand too.", silent=True
        ),
        "region": Property(
            "string", "Region. The default is the region of the cheapest machine that matches.", silent=True
        ),
        "maxUsdPerHour": Property("number", "Price ceiling for that machine, USD per hour.", silent=True),
        "keep": Property("boolean", "Keep the volume when the resource is deleted (default true)."),
        "existingName": Property(
            "string",
            "Name of a volume at the cloud that is adopted in place of a new one, such as one that was kept under an "
            "earlier name of the stack. Default: the name that belongs to stack and resource.",
        ),
        "overlap": Property(
            "boolean",
            "Whether another machine gets a volume of its own, and this one is deleted after that machine is ready "
            "(default false).",
            silent=True,
            unreadable=True,
        ),
    }
    outputs = {
        "handle": Property("string", "The provider's handle, which attach and delete take."),
        "volumeName": Property("string", "Name at the cloud."),
        "provider": Property("string", "Company that runs it. The instance must be at the same company."),
        "placement": Property("string", "Region, as the cloud spells it."),
        "mountTag": Property("string", "virtiofs tag, where the volume is a share."),
        "usdPerHour": Property("number", "Price of the whole volume, USD per hour."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Refuse a volume that would shrink."""
        new.setdefault("keep", True)
        before, after = (old or {}).get("sizeGb"), new.get("sizeGb")
        if isinstance(before, int) and isinstance(after, int) and after < before:
            reason = f"the volume has {before} GB and can't shrink; keep {before}, or rename the resource"
            return [Failure("sizeGb", reason)]
        if isinstance(after, int) and after < 1:
            return [Failure("sizeGb", f"{after} GB is too small; at least 1")]
        return []

    def compare(self, old: Values, new: Values, ignore: tuple[str, ...] = ()) -> dict[str, Kind]:
        """Compare the inputs. With `overlap`, another machine replaces the volume too.

        Without it, another machine is an update, so that the state knows which one has the volume now. The state of an
        imported volume knows none.
        """
        kind = Kind.REPLACE if new.get("overlap") else Kind.UPDATE
        known = [name for name in _MACHINE if old.get(name) is not None and name not in ignore]
        others = {name: kind for name in known if old.get(name) != new.get(name)}
        return super().compare(old, new, ignore) | others

    async def preview(self, call: Call, new: Values) -> Values:
        """Return the volume that would be adopted, which also finds a wrong API key before anything is rented."""
        if has_unknown(new.get("existingName")):
            return {}
        name = self._name(call, new)
        found = await self._find(call, new, name)
        if found is None:
            return {"volumeName": name, "usdPerHour": await self._price(call, new)}
        await self._check_adoptable(call, found, new)
        return self._outputs(found, found.name)

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Return the new price: the size and `keep` change in place."""
        self._check_same_volume(call, old, new)
        before, after, price = old.get("sizeGb"), new.get("sizeGb"), old.get("usdPerHour")
        if before == after or not before or not price:
            return {}
        return {"usdPerHour": None if has_unknown(after) else round(price / before * after, 6)}

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Grow the volume. Its content stays."""
        self._check_same_volume(call, old, new)
        outputs = {name: old.get(name) for name in self.outputs}
        if new["sizeGb"] == old.get("sizeGb"):
            return outputs
        from pulumi_vllm.spheron.errors import CloudError  # requests takes 0.1 s

        cloud, name = call.session.cloud(), str(old.get("volumeName"))
        try:
            await call.session.ask(cloud.volumes.grow, old["handle"], new["sizeGb"])
        except CloudError as error:
            if error.status not in _CANNOT_GROW:
                raise
            raise UserError(
                f"{error}. The volume {name} keeps its {old.get('sizeGb')} GB and its content; set the size back, or "
                "move to a new volume by giving the stack another name"
            ) from None
        found = await call.session.ask(cloud.volumes.find, name)
        return self._outputs(found, name) if found else outputs

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Adopt the volume of our name, or create it where its machine is on offer."""
        cloud, name = call.session.cloud(), self._name(call, new)
        found = await self._find(call, new, name)
        if found is None:
            offer, region = await self._place(call, new)
            async with call.session.critical():
                found = await call.session.ask(
                    cloud.volumes.create, name, new["sizeGb"], offer.provider, region
                )
        else:
            await self._check_adoptable(call, found, new)
            await call.info(f"adopted the volume {found.name} ({found.size_gb} GB in {found.region})")
        if new.get("overlap"):
            call.session.successors[call.urn] = found.name
        return found.id, self._outputs(found, found.name)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return the volume as the cloud lists it. Warn of one that a later create would not find by its name."""
        name = str(state.get("volumeName"))
        if state.get("volumeName") and inputs.get("keep", True) and name not in self._names(call, inputs):
            await call.warn(
                f"the volume {name} has the name that the stack or the resource had when it was created. Set "
                f"`server.volume: {name}` in the stack file, and run `pulumi up`: without it, `pulumi destroy` leaves "
                "the volume in the state and fails, because a later `pulumi up` would pay for a new one"
            )
        for volume in await call.session.ask(call.session.cloud().volumes.list):
            if volume.id == resource_id and volume.status != "deleting":
                name = str(state.get("volumeName") or volume.name)
                return Reading(self._outputs(volume, name), {**inputs, "sizeGb": volume.size_gb})
        return None

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Keep the volume and print its price, or detach and delete it.

        Raises:
            UserError: it is to be kept, and only the state still knows its name.
        """
        name, successor = state.get("volumeName"), call.session.successors.get(call.urn, "")
        if successor == name:
            return
        if successor:
            await call.info(f"the volume {name} is deleted; {successor} has taken its place")
        elif state.get("keep", True):
            price = state.get("usdPerHour")
            cost = f"; it costs ${price * 24:.2f} per day" if price else ""
            delete = f"`pulumi-vllm sweep --delete --volumes {name}` deletes it"
            if name not in self._names(call, state):
                raise UserError(
                    f"{call.name}: the volume {name} is kept{cost}, and stays in the state, with which the next "
                    "`pulumi up` uses it again. The stack or the resource had another name when the volume was "
                    "created, so without the state `pulumi up` would pay for a second one. To give it up, run `pulumi "
                    f"state delete '{call.urn}'`, then `pulumi destroy` again; {delete}"
                )
            await call.info(f"kept the volume {name}{cost}. `pulumi-vllm sweep` lists it, and {delete}")
            return
        cloud = call.session.cloud()
        volume = await call.session.ask(cloud.volumes.find, str(name))
        if volume is None:
            return
        for instance_id in volume.attached_to:
            await call.session.ask(cloud.volumes.detach, volume.handle, instance_id, ignore_refusal=True)
        await self._delete(call, volume)

    async def _delete(self, call: Call, volume: "CloudVolume") -> None:
        """Delete a volume. An instance that has just ended may hold it a moment longer."""
        refusal = ""

        async def is_deleted() -> bool | None:
            nonlocal refusal
            try:
                await call.session.ask(call.session.cloud().volumes.delete, volume.handle)
            except CloudError as error:
                if error.status not in _STILL_ATTACHED:
                    raise
                refusal = str(error)
                return None
            return True

        try:
            await poll(
                call,
                is_deleted,
                within_s=_RELEASED_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"waiting for the volume {volume.name} to be released",
            )
        except PollTimeoutError:
            raise UserError(
                f"{refusal}; detach the volume in the cloud's console, or run `pulumi destroy` again in some minutes"
            ) from None

    def _name(self, call: Call, values: Values) -> str:
        """Return the name that a new volume gets, or that of the volume to adopt."""
        plain, of_machine = self._names(call, values)
        return of_machine if values.get("overlap") else plain

    def _names(self, call: Call, values: Values) -> tuple[str, str]:
        """Return the names under which a create finds the volume: without and with its machine.

        The parent is no part of them, so that a resource keeps its volume under another one.
        """
        if values.get("existingName"):
            return (str(values["existingName"]),) * 2
        identity = (self.token, call.name)
        machine = [str(values.get(name)) for name in _MACHINE]
        plain = physical_name(call.stack, call.project, call.name, *identity)
        return plain, physical_name(call.stack, call.project, call.name, *identity, *machine)

    async def _find(self, call: Call, new: Values, name: str) -> "CloudVolume | None":
        """Return the volume of this name. Without one, warn of volumes that were kept and may be meant.

        Raises:
            UserError: the inputs name a volume that does not exist.
        """
        listed = await call.session.ask(call.session.cloud().volumes.list)
        existing = [volume for volume in listed if volume.status != "deleting"]
        found = next((volume for volume in existing if volume.name == name), None)
        if found is None and new.get("overlap"):
            found = await self._unused(call, existing, self._names(call, new)[0])
        if found is None and new.get("existingName"):
            raise UserError(
                f"{call.name}: the cloud lists no volume {name}; `pulumi-vllm sweep` lists the volumes. Correct "
                "server.volume in the stack file, or leave it out to create a volume"
            )
        if found is None:
            unused = [
                volume
                for volume in existing
                if is_of_resource(volume.name, call.name) and not await self._holder(call, volume)
            ]
            for volume in unused:
                price = volume.usd_per_hour
                cost = f", ${price * 24:.2f} per day" if price else ""
                await call.warn(
                    f"the volume {volume.name} ({volume.size_gb} GB in {volume.region}{cost}) lies unused. Another "
                    "stack kept it, or this one under an earlier name. To use it in place of a new volume, set "
                    f"`server.volume: {volume.name}` in the stack file"
                )
        return found

    async def _unused(self, call: Call, existing: "list[CloudVolume]", name: str) -> "CloudVolume | None":
        """Return the volume of this name, unless an instance has it: then the new one overlaps with that instance."""
        found = next((volume for volume in existing if volume.name == name), None)
        return None if found is None or await self._holder(call, found) else found

    async def _holder(self, call: Call, volume: "CloudVolume") -> "CloudInstance | None":
        """Return the live instance that a volume is attached to. Records of ended instances may remain."""
        for instance_id in volume.attached_to:
            holder = await call.session.ask(call.session.cloud().instances.get, instance_id)
            if holder is not None and not holder.terminal:
                return holder
        return None

    def _check_same_volume(self, call: Call, old: Values, new: Values) -> None:
        wanted, current = new.get("existingName"), old.get("volumeName")
        if wanted and not has_unknown(wanted) and wanted != current:
            raise UserError(
                f"{call.name}: the stack uses the volume {current}; to use {wanted} in its place, run "
                f"`pulumi up --replace '{call.urn}'`. {current} is kept"
            )

    async def _place(self, call: Call, new: Values) -> "tuple[Offer, str]":
        """Return the best offer of a machine for this volume, and the region of both."""
        offer = (await find_offers(call, new, with_volume=True))[0]
        return offer, new.get("region") or offer.regions[0]

    async def _price(self, call: Call, new: Values) -> float | None:
        """Return the price of a new volume; None if the cloud publishes none or does not offer that machine today."""
        if has_unknown(new):
            return None
        try:
            offer, region = await self._place(call, new)
            each = await call.session.ask(
                call.session.cloud().volumes.usd_per_gb_hour, offer.provider, region
            )
        except (CloudError, NoOfferError):
            return None  # the preview of the instance reports the reason
        return round(float(each) * float(new["sizeGb"]), 6)

    async def _check_adoptable(self, call: Call, volume: "CloudVolume", new: Values) -> None:
        """Refuse a volume of our name that cannot be mounted, differs from the stack, or is in use."""
        region = None if has_unknown(new.get("region")) else new.get("region")
        where = f"{call.name}: the volume {volume.name}"
        if not volume.mountable:
            reason = why_unmountable(volume.provider, volume.region)
            raise UserError(f"{where}: {reason}, and delete the volume or give the stack another name")
        if volume.size_gb != new["sizeGb"] and not has_unknown(new["sizeGb"]):
            raise UserError(
                f"{where} has {volume.size_gb} GB, but the stack wants {new['sizeGb']}; set the size to "
                f"{volume.size_gb} GB, or delete the volume"
            )
        if region and volume.region and region != volume.region:
            raise UserError(
                f"{where} is in {volume.region}, but the stack wants {region}; set the region to {volume.region}, "
                "or delete the volume"
            )
        holder = await self._holder(call, volume)
        if holder is not None:
            held = f"{where} is attached to {holder.name} ({holder.id}), which is {holder.status}"
            if is_of_stack(holder.name, call.stack, call.project):
                raise UserError(f"{held}; {STATE_LOST}")
            raise UserError(
                f"{held}; a volume has one writer. Destroy that stack, or give this one another name"
            )

    def _outputs(self, volume: "CloudVolume", name: str) -> Values:
        return {
            "handle": volume.handle,
            "volumeName": name,
            "provider": volume.provider,
            "placement": volume.region,
            "mountTag": volume.mount_tag,
            "usdPerHour": volume.usd_per_hour,
        }
