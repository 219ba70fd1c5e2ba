"""The rented machine: found or made once, kept in state from its first moment, let go only after a drain."""

from typing import Any

from pulumi_vllm.plan.names import physical_name

from . import cheaper
from .common import pause_s
from .departure import leave
from .resource import (
    Call,
    Cancelled,
    Failure,
    Partial,
    Property,
    Reading,
    Resource,
    UserError,
    Values,
    has_unknown,
    reveal,
)

# Provisioning takes 3 to 25 minutes, SSH up to 20 more (Spheron, seen in client code 2026-05): 60 in all.
_READY_ATTEMPTS_S = 3600.0


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
        offer = (await self._offers(call, {**new, **known}))[0]
        await cheaper.tell(call, new, offer)
        return {"usdPerHour": offer.usd_per_hour, "offerId": offer.offer_id, "mountKind": offer.mount_kind}

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """An update changes nothing that is known."""
        return {}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Find the machine of our name or rent one; then wait until it answers."""
        cloud, name = call.session.cloud(), self._name(call, new)
        machine = await call.session.ask(cloud.find_instance, name)
        if machine is not None:
            await call.info(f"adopted the machine {name} ({machine.status})")
        else:
            machine = await self._rent(call, new, name)
        return machine.id, await self._ready(call, machine.id, new, {"instanceName": name})

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Gone when the cloud says so; unhealthy while it never became ready."""
        machine = await call.session.ask(call.session.cloud().instance, resource_id)
        if machine is None or machine.gone:
            if machine is not None and machine.status == "terminated-provider":
                await call.warn(f"{machine.name} was reclaimed by the provider; `pulumi up` rents another")
            return None
        imported = not state
        inputs = inputs or {
            "gpu": machine.gpu_type.partition("_")[0],
            "count": machine.gpu_count,
            "billing": "spot" if machine.instance_type == "SPOT" else "on-demand",
            "provider": machine.provider,
            "region": machine.region,
        }
        outputs = {name: state.get(name) for name in self.outputs} | self._seen(machine)
        unready = None
        if machine.status == "failed":
            unready = f"machine {machine.name} ({resource_id}) failed; `pulumi up --replace '{call.urn}'` rents another"
        elif not imported and not state.get("hostKey"):
            unready = (
                f"machine {machine.name} ({resource_id}) is {machine.status} and was never reached over SSH; "
                "it is billed"
            )
        return Reading(outputs, inputs, unready)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Nothing of a running machine changes in place; one that never became ready is waited for."""
        outputs = {name: old.get(name) for name in self.outputs}
        if old.get("hostKey"):
            return outputs
        return await self._ready(call, resource_id, new, outputs)

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Serve until the minimum run time is over, drain, stop, unmount, let go."""
        await leave(call, resource_id, state)

    # -- renting ------------------------------------------------------------------------------------
    def _name(self, call: Call, new: Values) -> str:
        identity = [str(new.get(name)) for name, prop in self.inputs.items() if prop.replaces]
        return physical_name(call.stack, call.name, call.urn, *identity)

    async def _offers(self, call: Call, new: Values) -> list[Any]:
        from pulumi_vllm.cloud.errors import CloudError  # noqa: PLC0415
        from pulumi_vllm.cloud.offers import choose  # noqa: PLC0415

        offers = await call.session.ask(call.session.cloud().offers)
        if new.get("provider"):
            offers = [offer for offer in offers if offer.provider == new["provider"]]
        wanted = new["gpu"], new["count"]
        where = new.get("region"), new.get("maxUsdPerHour")
        billing = new.get("billing") or "on-demand"
        if not (new.get("fallback") and billing == "spot"):
            return list(choose(offers, *wanted, billing, *where))
        ranked: list[Any] = []
        last: Exception | None = None
        for kind in (billing, new["fallback"]):
            try:
                ranked += choose(offers, *wanted, kind, *where)
            except CloudError as error:
                last = error
        if not ranked and last:
            raise last
        return ranked

    async def _rent(self, call: Call, new: Values, name: str) -> Any:
        from pulumi_vllm.cloud.errors import OutOfStock  # noqa: PLC0415
        from pulumi_vllm.cloud.models import CreateInstance  # noqa: PLC0415

        refused: Exception | None = None
        for offer in await self._offers(call, new):
            if call.session.cancelled.is_set():
                raise Cancelled("cancelled before a machine was rented")
            region = new.get("region") or offer.regions[0]
            await call.info(f"renting {name}: {offer.name}, ${offer.usd_per_hour:.2f}/h, {region}")
            wish = CreateInstance(
                name=name,
                offer=offer,
                region=region,
                operating_system=offer.operating_systems[0],
                ssh_key_id=new["sshKeyId"],
                cloud_init=reveal(new.get("cloudInit")) if offer.supports_cloud_init else None,
                volume_handles=(),
            )
            try:
                async with call.session.critical():
                    return await call.session.ask(call.session.cloud().create_instance, wish)
            except OutOfStock as error:
                refused = error
                await call.info(f"{offer.name}: {error}; trying the next offer")
        raise UserError(f"{call.name}: no machine to be had: {refused}; try another region, or later")

    async def _ready(self, call: Call, machine_id: str, new: Values, outputs: Values) -> Values:
        """Wait for `running`, then for SSH. Whatever goes wrong, the id stays in state."""
        try:
            await self._wait_running(call, machine_id, outputs)
            await self._wait_ssh(call, machine_id, new, outputs)
        except Cancelled:
            raise Partial(
                f"cancelled while waiting for {outputs['instanceName']} ({machine_id}); it exists and is billed",
                machine_id,
                outputs,
            ) from None
        except Partial:
            raise
        except Exception as error:
            text = str(error)
            raise Partial(
                f"machine {outputs['instanceName']} ({machine_id}): {text}; it exists and is billed",
                machine_id,
                outputs,
            ) from error
        return outputs

    async def _wait_running(self, call: Call, machine_id: str, outputs: Values) -> None:
        cloud, waited, attempt = call.session.cloud(), 0.0, 0
        while True:
            machine = await call.session.ask(cloud.instance, machine_id)
            if machine is None:
                raise UserError("the cloud no longer knows it; run `pulumi up --refresh`")
            outputs |= self._seen(machine)
            if machine.terminal:
                raise UserError(
                    f"the cloud says {machine.status}; `pulumi destroy` or `pulumi up --replace` lets it go"
                )
            if machine.status == "running" and machine.address:
                return
            if waited > _READY_ATTEMPTS_S:
                raise UserError(f"still {machine.status} after an hour; `pulumi destroy` lets it go")
            await call.progress(f"{machine.name} is {machine.status} ({waited:.0f} s)")
            await call.sleep(pause_s(attempt))
            waited, attempt = waited + pause_s(attempt), attempt + 1

    async def _wait_ssh(self, call: Call, machine_id: str, new: Values, outputs: Values) -> None:
        from pulumi_vllm.host.reach import wait_ssh  # noqa: PLC0415

        users = [outputs["user"]] if outputs.get("user") else ["ubuntu", "root"]

        async def say(text: str) -> None:
            await call.progress(text)

        host = await wait_ssh(
            outputs["address"],
            outputs.get("port") or 22,
            users,
            reveal(new["sshPrivateKey"]),
            host_key=None,
            timeout_s=_READY_ATTEMPTS_S / 3,
            cancelled=call.session.cancelled,
            progress=say,
        )
        outputs |= {"user": host.address.user, "port": host.address.port, "hostKey": host.host_key}
        await host.close()
        await call.info(f"{outputs['instanceName']} is up at {outputs['address']}")

    def _seen(self, machine: Any) -> Values:
        from pulumi_vllm.cloud.providers import mount_kind  # noqa: PLC0415

        seen = {
            "instanceName": machine.name,
            "status": machine.status,
            "address": machine.address,
            "usdPerHour": machine.hourly_rate,
            "offerId": machine.offer_id,
            "placement": machine.region,
            "host": machine.provider,
            "mountKind": mount_kind(machine.provider),
            "createdAt": machine.created_at,
            "port": machine.port,
            "user": machine.user,
        }
        return {name: value for name, value in seen.items() if value is not None}
