"""A rented instance: found by name or rented once, kept in state from its first moment, terminated after a drain."""

from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.plan.defaults import DRAIN_TIMEOUT_S
from pulumi_vllm.plan.names import is_same, marked_name
from pulumi_vllm.plan.offer_choice import NoOfferError, written
from pulumi_vllm.provider.lifecycle import period
from pulumi_vllm.provider.lifecycle.instance_liveness import (
    UNUSABLE_STATUSES,
    describe_loss,
    replacement_hint,
)
from pulumi_vllm.provider.lifecycle.machine_offers import find_offers, wanted_gpus
from pulumi_vllm.provider.lifecycle.never_ready import END_IF_NEVER_READY, end_never_ready
from pulumi_vllm.provider.lifecycle.provision import NEVER_READY, instance_outputs, wait_until_ready
from pulumi_vllm.provider.lifecycle.terminate import terminate
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Cancelled, Partial, UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Failure, Kind, Property, Reading, Resource, Values
from pulumi_vllm.provider.resources.cheaper_offers import warn_if_cheaper
from pulumi_vllm.provider.resources.lost_state import warn_of_unknown_instances
from pulumi_vllm.spheron.errors import OutOfStockError
from pulumi_vllm.spheron.models import InstanceRequest

if TYPE_CHECKING:
    from pulumi_vllm.spheron.models import Instance as CloudInstance

_REPLACEMENT = (
    "the instance is replaced. The old one is drained and terminated first, because a volume has one writer, so never "
    "two are billed. Nothing answers from then until the new one is rented (3 to 25 minutes) and vLLM has started"
)
_OVERLAP = (
    "the instance is replaced. The new one is rented (3 to 25 minutes), downloads the weights and answers before the "
    "old one is drained and terminated. Both, and both volumes, are billed until then. The address changes"
)


class Instance(Resource):
    """`vllm:spheron:Instance`."""

    token = "vllm:spheron:Instance"
    description = (
        "A rented instance. It is deleted before it is replaced, unless both overlap. It is billed from the accepted "
        "request on."
    )
    inputs = {
        "gpu": Property(
            "string", "GPU model as in offers, such as H200, H100 or CPU.", required=True, replaces=True
        ),
        "otherGpus": Property(
            "array",
            "Further GPU models, in order of preference, for when no instance with `gpu` is offered. An instance with "
            "any of them stays.",
            silent=True,
            of="string",
        ),
        "count": Property(
            "integer", "Number of GPUs; 0 for an instance without GPUs.", required=True, replaces=True
        ),
        "billing": Property("string", "on-demand (default) or spot.", replaces=True),
        "fallback": Property(
            "string", "on-demand: rent an on-demand instance when no spot instance is available.", silent=True
        ),
        "provider": Property("string", "Company that runs it. A volume sets its own.", replaces=True),
        "region": Property(
            "string", "Region, as the cloud spells it. A volume sets its placement.", replaces=True
        ),
        "maxUsdPerHour": Property(
            "number", "Price ceiling for the whole instance, USD per hour.", silent=True
        ),
        "sshKeyId": Property(
            "string", "Id of the SSH key at the cloud.", required=True, silent=True, unreadable=True
        ),
        "sshPublicKey": Property(
            "string",
            "Public SSH key. It is part of the instance's identity.",
            required=True,
            replaces=True,
            unreadable=True,
        ),
        "sshPrivateKey": Property(
            "string",
            "Private SSH key, to log in to the host and to drain it.",
            required=True,
            secret=True,
            silent=True,
            unreadable=True,
        ),
        "cloudInit": Property(
            "object", "packages, runcmd and writeFiles for the first boot, where supported.", silent=True
        ),
        "drainTimeoutS": Property(
            "number", "Seconds that running requests get to finish before the instance ends.", silent=True
        ),
        "owner": Property(
            "string",
            "Who is responsible: up to 8 lower-case letters and digits. The name at the cloud holds it.",
        ),
        "expiresS": Property(
            "number",
            "Seconds after lastUp at which the machine powers off by itself. The name at the cloud holds the end.",
        ),
        "lastUp": Property(
            "string",
            "When the last `pulumi up` began (ISO 8601). Leave it out in a preview, so that none shows a difference.",
        ),
        "idleStopS": Property(
            "number",
            "Seconds without a request after which the machine powers off by itself.",
            silent=True,
        ),
        "power": Property(
            "string",
            "Leave it out. A refresh sets it for a machine with expiresS or idleStopS that has powered off, so that "
            "`pulumi up` replaces it.",
            replaces=True,
        ),
        "endIfNeverReady": END_IF_NEVER_READY,
        "alternatives": Property(
            "array",
            "Equivalent machines, such as 1x H200. A preview warns when one costs less today.",
            silent=True,
            of="string",
        ),
        "overlap": Property(
            "boolean",
            "Whether a replacement is created before this instance is deleted (default false).",
            silent=True,
            unreadable=True,
        ),
    }
    outputs = {
        "instanceName": Property("string", "Name at the cloud."),
        "gpuTaken": Property("string", "The GPU that it has, of `gpu` and `otherGpus`."),
        "status": Property("string", "Status at the cloud."),
        "address": Property("string", "Public IPv4 address."),
        "user": Property("string", "Login user."),
        "port": Property("integer", "SSH port."),
        "hostKey": Property("string", "SSH host key, pinned at first contact."),
        "usdPerHour": Property("number", "Price of the whole instance, USD per hour."),
        "billedAs": Property("string", "on-demand or spot, as rented; it may be the fallback."),
        "offerId": Property("string", "Id of the rented offer."),
        "placement": Property("string", "Region in which it runs."),
        "host": Property("string", "Company that runs it."),
        "mountKind": Property("string", "How volumes appear on the host: block, virtiofs or nfs."),
        "createdAt": Property("string", "Time of creation (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Set defaults, and check billing and price ceiling."""
        if old:
            call.session.in_state.add(call.urn)
        new.setdefault("billing", "on-demand")
        new.setdefault("drainTimeoutS", DRAIN_TIMEOUT_S)
        if not new.get("expiresS"):
            new.pop("lastUp", None)
        elif new.get("lastUp") is None and (old or {}).get("lastUp"):
            new["lastUp"] = (old or {})["lastUp"]
        failures = []
        if new["billing"] not in {"on-demand", "spot"} and isinstance(new["billing"], str):
            failures.append(Failure("billing", f"unknown {new['billing']!r}; on-demand or spot"))
        ceiling = new.get("maxUsdPerHour")
        if isinstance(ceiling, int | float) and ceiling <= 0:
            failures.append(Failure("maxUsdPerHour", "the ceiling must be above 0"))
        return failures

    def compare(self, old: Values, new: Values, ignore: tuple[str, ...] = ()) -> dict[str, Kind]:
        """Compare the inputs. A machine stays while its GPU is one of those that are accepted."""
        found = super().compare(old, new, ignore)
        taken = old.get("gpuTaken") or old.get("gpu")
        if taken is not None and "gpu" not in ignore and not has_unknown(new.get("gpu")):
            found.pop("gpu", None)
            if taken not in wanted_gpus(new):
                found["gpu"] = Kind.REPLACE
        return found

    async def before_replacement(self, call: Call, new: Values) -> None:
        """Refuse to delete an instance while no offer for the next one is listed."""
        try:
            await find_offers(call, _known(new), with_volume=new.get("provider") is not None)
        except NoOfferError as error:
            message = (
                f"{call.name}: the instance would be replaced, but no other can be had, so it stays: {error}"
            )
            raise UserError(
                f"{message}; `pulumi destroy --target '{call.urn}'` deletes it all the same"
            ) from None

    async def preview(self, call: Call, new: Values) -> Values:
        """Return the offer that would be rented. Without a matching offer the preview fails."""
        if call.urn in call.session.in_state:
            await call.info(f"{call.name}: {_OVERLAP if new.get('overlap') else _REPLACEMENT}")
        else:
            await warn_of_unknown_instances(call, self._name(call, new))
        known = _known(new)
        offer = (await find_offers(call, known, with_volume=new.get("provider") is not None))[0]
        await warn_if_cheaper(call, known, offer)
        gpus = wanted_gpus(known)
        if (taken := written(offer.gpu, gpus)) != gpus[0]:
            await call.info(
                f"{call.name}: no machine with {gpus[0]} is on offer within the ceiling; it is {taken}"
            )
        return {
            "gpuTaken": taken,
            "usdPerHour": offer.usd_per_hour,
            "billedAs": offer.billing,
            "offerId": offer.offer_id,
            "mountKind": offer.mount_kind,
        }

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Return nothing: an update changes no output."""
        return {}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Adopt the instance of our name or rent one, then wait until it is ready."""
        name = self._name(call, new)
        instance = await call.session.ask(call.session.cloud().instances.find, name)
        rented = instance is None
        if instance is not None and new.get("overlap") and call.urn in call.session.in_state:
            # With `--replace`, the engine would delete the instance that is adopted here.
            raise UserError(
                f"{call.name}: a replacement that overlaps needs another GPU, count or billing; set "
                "`machine.replace: delete-first` to replace the instance by one of the same kind"
            )
        if instance is not None:
            await call.info(f"adopted the instance {instance.name} ({instance.status})")
            call.session.adopted.add(instance.id)
            await self._rename(call, instance.id, instance.name, name)
        else:
            if call.urn not in call.session.in_state:
                await warn_of_unknown_instances(call, name)
            instance = await self._rent(call, new, name)
        try:
            taken = {"instanceName": name, "gpuTaken": written(instance.gpu, wanted_gpus(new))}
            outputs = await wait_until_ready(call, instance.id, new, taken)
        except Partial as error:
            if rented and new.get("endIfNeverReady") and isinstance(error.__cause__, NEVER_READY):
                await end_never_ready(call, instance.id, {}, error)
            raise
        await self._begin_period(call, instance.id, new, outputs)
        return instance.id, outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return the instance as the cloud reports it; unhealthy while it has never been ready."""
        instance = await call.session.ask(call.session.cloud().instances.get, resource_id)
        if state:
            call.session.in_state.add(call.urn)
        if instance is None or instance.gone:
            if instance is not None and instance.reclaimed:
                await call.warn(f"{describe_loss(instance, resource_id)}; `pulumi up` rents another")
            elif instance is not None and (inputs.get("expiresS") or inputs.get("idleStopS")):
                await call.info(f"{describe_loss(instance, resource_id)}; `pulumi up` rents another")
            return None
        imported = not state
        inputs = inputs or {
            "gpu": instance.gpu,
            "count": instance.gpu_count,
            "billing": instance.billing,
            "provider": instance.provider,
            "region": instance.region,
        }
        outputs = {name: state.get(name) for name in self.outputs} | instance_outputs(instance)
        outputs["gpuTaken"] = state.get("gpuTaken") or inputs.get("gpu")
        status = f"instance {instance.name} ({resource_id}) is {instance.status}"
        unhealthy = None
        stopped = period.why_stopped(instance, inputs)
        if stopped is not None:
            await call.warn(
                f"{status.replace('is stopped', stopped)}. It may be billed until it is deleted; `pulumi up` replaces "
                "it, with the same volume, and `pulumi-vllm sweep --expired --delete` ends it"
            )
            inputs = {**inputs, "power": stopped}
        elif instance.status in UNUSABLE_STATUSES:
            unhealthy = f"{status}; it is billed, and {replacement_hint(call)}"
        elif not imported and not state.get("hostKey"):
            unhealthy = f"{status} and was never reached over SSH; it is billed"
        else:
            await period.report_end(call, instance)
        return Reading(outputs, inputs, unhealthy)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Wait for an instance that was never ready, and begin its period again. Nothing else changes in place."""
        outputs = {name: old.get(name) for name in self.outputs}
        if any(old.get(name) != new.get(name) for name in period.MARKED_INPUTS):
            before = str(old.get("instanceName"))
            outputs["instanceName"] = await self._rename(call, resource_id, before, self._name(call, new))
        if not (old.get("hostKey") and old.get("status") == "running"):
            outputs = await wait_until_ready(call, resource_id, new, outputs)
        await self._begin_period(call, resource_id, new, outputs)
        return outputs

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Serve until the minimum run time is over, drain, stop, unmount and terminate."""
        if (
            resource_id in call.session.adopted
        ):  # by its own replacement, of which `--replace` says nothing to check
            await call.warn(f"{call.name}: the instance stays, because its replacement is the same one")
            return
        await terminate(call, resource_id, state)

    # -- renting ------------------------------------------------------------------------------------
    def _name(self, call: Call, new: Values) -> str:
        identity = [
            str(new.get(name)) for name, prop in self.inputs.items() if prop.replaces and name != "power"
        ]
        return marked_name(period.mark(new), call.stack, call.project, call.name, call.urn, *identity)

    async def _rename(self, call: Call, instance_id: str, before: str, name: str) -> str:
        """Mark owner and end of the period at the cloud. An imported instance keeps its name. Returns the name."""
        if not is_same(before, name):
            return before
        if before != name:
            await call.session.ask(call.session.cloud().instances.rename, instance_id, name)
        return name

    async def _begin_period(self, call: Call, instance_id: str, new: Values, outputs: Values) -> None:
        try:
            await period.begin(call, new, outputs)
        except HostError as error:
            raise Partial(
                f"{call.name}: the cloud shows the new end of the period, but the host does not know it and may power "
                f"off before: {error}; run `pulumi up` again",
                instance_id,
                outputs,
            ) from error

    async def _rent(self, call: Call, new: Values, name: str) -> "CloudInstance":
        """Rent the best offer that is really available."""
        last_error: Exception | None = None
        for offer in await find_offers(call, new, with_volume=bool(new.get("provider"))):
            if call.session.cancelled.is_set():
                raise Cancelled("cancelled before an instance was rented")
            region = new.get("region") or offer.regions[0]
            await call.info(f"renting {name}: {offer.name}, ${offer.usd_per_hour:.2f}/h, {region}")
            request = InstanceRequest(
                name=name,
                offer=offer,
                region=region,
                operating_system=offer.operating_systems[0],
                ssh_key_id=new["sshKeyId"],
                cloud_init=reveal(new.get("cloudInit")) if offer.supports_cloud_init else None,
            )
            try:
                async with call.session.critical():
                    rented = await call.session.ask(call.session.cloud().instances.create, request)
            except OutOfStockError as error:
                last_error = error
                await call.info(f"{offer.name}: {error}; trying the next offer")
            else:
                await call.info(f"rented {name} ({rented.id})")
                return rented
        raise UserError(f"{call.name}: no instance is available: {last_error}")


def _known(new: Values) -> Values:
    """The inputs, without a placement that only `up` knows."""
    return new | {name: None for name in ("provider", "region") if has_unknown(new.get(name))}
