"""The rented machine: found or made once, kept in state from its first moment, let go only after a drain."""

from typing import Any

from pulumi_vllm.plan.names import physical_name
from pulumi_vllm.provider.lifecycle.machine_offers import find_offers
from pulumi_vllm.provider.lifecycle.machine_state import UNUSABLE_STATUSES, describe_loss, replacement_hint
from pulumi_vllm.provider.lifecycle.provision import arrive, seen
from pulumi_vllm.provider.lifecycle.terminate import leave
from pulumi_vllm.provider.plugin.resource import (
    Call,
    Cancelled,
    Failure,
    Property,
    Reading,
    Resource,
    UserError,
    Values,
    has_unknown,
    reveal,
)
from pulumi_vllm.provider.resources.cheaper_offers import warn_if_cheaper


class Instance(Resource):
    """`vllm:spheron:Instance`."""

    token = "vllm:spheron:Instance"
    description = "A GPU machine. Deleted before it is replaced; bills from the accepted request on."
    inputs = {
        "gpu": Property("string", "GPU model as in offers: H200, H100, CPU.", required=True, replaces=True),
        "count": Property(
            "integer", "GPUs in the machine; 0 for a machine without.", required=True, replaces=True
        ),
        "billing": Property("string", "on-demand (default) or spot.", replaces=True),
        "fallback": Property("string", "on-demand: taken when no spot machine can be had.", silent=True),
        "provider": Property("string", "Who runs it; a volume's provider where there is one.", replaces=True),
        "region": Property("string", "Region, as the cloud spells it; a volume's placement.", replaces=True),
        "maxUsdPerHour": Property(
            "number", "Price ceiling for the whole machine, USD per hour.", silent=True
        ),
        "sshKeyId": Property("string", "The cloud's id of our key.", required=True, silent=True),
        "sshPublicKey": Property(
            "string", "Public half; part of the machine's identity.", required=True, replaces=True
        ),
        "sshPrivateKey": Property(
            "string",
            "Private half, to look at the machine and to drain it.",
            required=True,
            secret=True,
            silent=True,
        ),
        "cloudInit": Property(
            "object", "packages, runcmd, writeFiles; used at creation, where honoured.", silent=True
        ),
        "drainTimeoutS": Property(
            "number", "Seconds that running requests get before the machine goes.", silent=True
        ),
        "alternatives": Property(
            "array",
            "Machines that do the same, as 1x H200; a preview says when one costs less today.",
            silent=True,
            of="string",
        ),
    }
    outputs = {
        "instanceName": Property("string", "Name at the cloud."),
        "status": Property("string", "Status at the cloud."),
        "address": Property("string", "Public IPv4 address."),
        "user": Property("string", "Login user."),
        "port": Property("integer", "SSH port."),
        "hostKey": Property("string", "SSH host key, pinned at first contact."),
        "usdPerHour": Property("number", "Price of the whole machine, USD per hour."),
        "billedAs": Property("string", "on-demand or spot: what was really taken, the fallback too."),
        "offerId": Property("string", "The offer it came from."),
        "placement": Property("string", "Region it runs in."),
        "host": Property("string", "Provider it runs at."),
        "mountKind": Property("string", "How volumes appear: block, virtiofs or nfs."),
        "createdAt": Property("string", "When it was made (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Defaults, and prices that make sense."""
        new.setdefault("billing", "on-demand")
        new.setdefault("drainTimeoutS", 30)
        failures = []
        if new["billing"] not in {"on-demand", "spot"} and isinstance(new["billing"], str):
            failures.append(Failure("billing", f"unknown {new['billing']!r}; on-demand or spot"))
        ceiling = new.get("maxUsdPerHour")
        if isinstance(ceiling, int | float) and ceiling <= 0:
            failures.append(Failure("maxUsdPerHour", "a ceiling must be above 0"))
        return failures

    async def preview(self, call: Call, new: Values) -> Values:
        """The machine that would be taken, and its price: no preview without."""
        known = {
            name: None if has_unknown(new.get(name)) else new.get(name) for name in ("provider", "region")
        }
        with_volume = new.get("provider") is not None
        offer = (await find_offers(call, {**new, **known}, with_volume=with_volume))[0]
        await warn_if_cheaper(call, {**new, **known}, offer)
        return {
            "usdPerHour": offer.usd_per_hour,
            "billedAs": offer.billing,
            "offerId": offer.offer_id,
            "mountKind": offer.mount_kind,
        }

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """An update changes nothing that is known."""
        return {}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Find the machine of our name or rent one; then wait until it answers."""
        cloud, name = call.session.cloud(), self._name(call, new)
        machine = await call.session.ask(cloud.instances.find, name)
        if machine is not None:
            await call.info(f"adopted the machine {name} ({machine.status})")
        else:
            machine = await self._rent(call, new, name)
        return machine.id, await arrive(call, machine.id, new, {"instanceName": name})

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Gone when the cloud says so; unhealthy while it never became ready."""
        machine = await call.session.ask(call.session.cloud().instances.get, resource_id)
        if machine is None or machine.gone:
            if machine is not None and machine.status == "terminated-provider":
                await call.warn(f"{describe_loss(machine, resource_id)}; `pulumi up` rents another")
            return None
        imported = not state
        inputs = inputs or {
            "gpu": machine.gpu_type.partition("_")[0],
            "count": machine.gpu_count,
            "billing": machine.billing,
            "provider": machine.provider,
            "region": machine.region,
        }
        outputs = {name: state.get(name) for name in self.outputs} | seen(machine)
        unready = None
        if machine.status in UNUSABLE_STATUSES:
            hint = replacement_hint(call)
            unready = f"instance {machine.name} ({resource_id}) is {machine.status}; it is billed, and {hint}"
        elif not imported and not state.get("hostKey"):
            unready = (
                f"machine {machine.name} ({resource_id}) is {machine.status} and was never reached over SSH; "
                "it is billed"
            )
        return Reading(outputs, inputs, unready)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Nothing of a running machine changes in place; one that never became ready is waited for."""
        outputs = {name: old.get(name) for name in self.outputs}
        if old.get("hostKey") and old.get("status") == "running":
            return outputs
        return await arrive(call, resource_id, new, outputs)

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Serve until the minimum run time is over, drain, stop, unmount, let go."""
        await leave(call, resource_id, state)

    # -- renting ------------------------------------------------------------------------------------
    def _name(self, call: Call, new: Values) -> str:
        identity = [str(new.get(name)) for name, prop in self.inputs.items() if prop.replaces]
        return physical_name(call.stack, call.name, call.urn, *identity)

    async def _rent(self, call: Call, new: Values, name: str) -> Any:
        from pulumi_vllm.spheron.errors import OutOfStockError
        from pulumi_vllm.spheron.models import InstanceRequest

        refused: Exception | None = None
        for offer in await find_offers(call, new, with_volume=bool(new.get("provider"))):
            if call.session.cancelled.is_set():
                raise Cancelled("cancelled before a machine was rented")
            region = new.get("region") or offer.regions[0]
            await call.info(f"renting {name}: {offer.name}, ${offer.usd_per_hour:.2f}/h, {region}")
            wish = InstanceRequest(
                name=name,
                offer=offer,
                region=region,
                operating_system=offer.operating_systems[0],
                ssh_key_id=new["sshKeyId"],
                cloud_init=reveal(new.get("cloudInit")) if offer.supports_cloud_init else None,
            )
            try:
                async with call.session.critical():
                    return await call.session.ask(call.session.cloud().instances.create, wish)
            except OutOfStockError as error:
                refused = error
                await call.info(f"{offer.name}: {error}; trying the next offer")
        raise UserError(f"{call.name}: no machine to be had: {refused}")
