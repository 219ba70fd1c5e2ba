"""The component: one served model on one machine, from the volume to the gateway."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import pulumi

from pulumi_vllm.component import (
    api_keys,
    commands,
    gateway_certificate,
    host_argument,
    plugin_discovery,
    stack_config,
)
from pulumi_vllm.component import generated as resources
from pulumi_vllm.component.by_gpu import of_files, of_taken
from pulumi_vllm.component.server_args import ServerArgs, validated_plan
from pulumi_vllm.plan import Plan, explain, plan
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.key_limits import requests_per_key
from pulumi_vllm.plan.recovery import LAST_UP_VARIABLE, Policy
from pulumi_vllm.render import cloud_init, render

if TYPE_CHECKING:
    import pulumi_command


class Server(pulumi.ComponentResource):
    """A vLLM server on a GPU machine, rented or not: volume, machine, pinned weights, systemd service, gateway."""

    endpoint: pulumi.Output[str]
    """Base URL of the OpenAI-compatible API, ending in /v1."""
    model: pulumi.Output[str]
    """Name of the model in requests."""
    ca_certificate: pulumi.Output[str]
    """CA certificate that clients verify the gateway with, PEM. With a custom certificate, its chain."""
    api_keys: pulumi.Output[dict[str, str]]
    """API keys by name (secret)."""
    usd_per_hour: pulumi.Output[float]
    """Price of machine and volume, USD per hour."""
    plan: pulumi.Output[dict[str, Any]]
    """The plan and its reasons: machine, flags, memory budget."""
    evidence: pulumi.Output[dict[str, Any]]
    """What is running: versions, revision, readiness, timings of the phases, expiry of the certificates."""

    def __init__(self, name: str, args: ServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server.

        Args:
            name: name in the program; children are called `<name>-machine`, `<name>-volume` and so on.
            args: see ServerArgs.
            opts: Pulumi's resource options.

        Raises:
            pulumi.RunError: with every error in the arguments, or the reason why the model cannot be served.
        """
        planned = validated_plan(args)
        self._overlap = planned.deployment.machine.replace == "overlap"
        rented = not planned.deployment.machine.is_own
        # The state keeps it while no machine exists, and `pulumi-vllm reconcile` reads it there.
        recovery = {"recovery": Policy.of(planned.deployment).to_json()} if rented else {}
        super().__init__("vllm:index:Server", name, recovery, opts)
        plugin_discovery.warn_if_hidden()
        # Before everything else: an invalid certificate is refused while nothing has been created.
        custom = gateway_certificate.declare(name, args, planned.deployment.access.hostname, self._child())
        before = [custom] if custom else []
        volume = self._rent_machine(name, args, planned, *before) if rented else None
        if volume is None:
            self._use_machine(name, args, planned.deployment, *before)
        secrets = self._declare_credentials(name, args, planned.deployment, custom)
        self._declare_host(name, planned, volume, secrets, commands_follow=bool(args.get("commands")))
        # By name, for a program that needs a command's stdout.
        self.commands = commands.declare(
            self,
            name,
            args.get("commands") or [],
            self._connection,
            machine=self.machine.id,
            ready=self.service,
            overlap=self._overlap,
        )
        self._set_outputs(planned, volume)

    def _use_machine(
        self, name: str, args: ServerArgs, deployment: Deployment, *after: pulumi.Resource
    ) -> None:
        """Declare a machine that somebody else made."""
        self.machine: resources.Instance | resources.Machine
        self._connection: dict[str, Any]
        machine = host_argument.declare(f"{name}-machine", args["host"], deployment, self._child(*after))
        self.machine = machine
        self._connection = {
            "host": machine.address,
            "port": machine.port,
            "user": machine.user,
            "hostKey": machine.pinned_host_key,
            "privateKey": machine.private_key,
        }

    def _rent_machine(
        self, name: str, args: ServerArgs, planned: Plan, *after: pulumi.Resource
    ) -> resources.Volume:
        """Declare the volume, the instance and its SSH key."""
        deployment, machine = planned.deployment, planned.deployment.machine
        gpu, *other_gpus = planned.preferred or machine.gpus
        key = resources.SshKey(
            f"{name}-ssh", private_key=args.get("ssh_private_key"), opts=self._child(*after)
        )
        volume = resources.Volume(
            f"{name}-volume",
            size_gb=deployment.storage_gb,
            gpu=gpu,
            other_gpus=other_gpus or None,
            count=machine.count,
            billing=machine.billing,
            fallback=machine.fallback,
            region=machine.region,
            max_usd_per_hour=machine.max_usd_per_hour,
            existing_name=deployment.volume,
            overlap=self._overlap,
            opts=self._child(*after),
        )
        instance = self.machine = resources.Instance(
            f"{name}-machine",
            gpu=gpu,
            other_gpus=other_gpus or None,
            count=machine.count,
            billing=machine.billing,
            fallback=machine.fallback,
            provider=volume.provider,
            region=volume.placement,
            max_usd_per_hour=machine.max_usd_per_hour,
            ssh_key_id=key.key_id,
            ssh_public_key=key.public_key,
            ssh_private_key=key.private_key_pem,
            cloud_init=cloud_init(planned),
            drain_timeout_s=deployment.drain_timeout_s,
            owner=deployment.owner,
            expires_s=deployment.expires,
            idle_stop_s=deployment.idle_stop,
            last_up=_last_up(deployment),
            end_if_never_ready=not machine.keep_failed,
            alternatives=_alternatives(planned),
            overlap=self._overlap,
            opts=self._child(),
        )
        self._connection = {
            "host": instance.address,
            "port": instance.port,
            "user": instance.user,
            "hostKey": instance.host_key,
            "privateKey": key.private_key_pem,
        }
        return volume

    def _declare_credentials(
        self,
        name: str,
        args: ServerArgs,
        deployment: Deployment,
        custom: resources.CustomCertificate | None,
    ) -> dict[str, pulumi.Input[str]]:
        """Declare the gateway's certificate and API keys. Return the secrets that files on the host contain."""
        authority = resources.Authority(
            f"{name}-ca", common_name=f"{name} {pulumi.get_stack()}", opts=self._child()
        )
        certificate = custom or resources.Certificate(
            f"{name}-certificate",
            authority_certificate=authority.certificate,
            authority_key=authority.private_key,
            address=self.machine.address,
            hostname=deployment.access.hostname,
            opts=self._child(),
        )
        self.ca_certificate = custom.chain if custom else authority.certificate
        self._expiry = {"certificate_expires": certificate.expires, "ca_expires": authority.expires}
        self.api_keys = api_keys.declare(name, deployment.access.key_names, args.get("keys"), self._child())
        readiness = resources.ApiKey(f"{name}-readiness", prefix="readiness-", opts=self._child()).key
        return {
            "readiness_token": readiness,
            "keys_map": api_keys.gateway_map(self.api_keys, readiness),
            "tls_pem": certificate.pem,
            "hf_token": args.get("hf_token") or "",
            "notify_url": args.get("notify_url") or "",
        }

    def _declare_host(
        self,
        name: str,
        planned: Plan,
        volume: resources.Volume | None,
        secrets: dict[str, pulumi.Input[str]],
        *,
        commands_follow: bool,
    ) -> None:
        """Declare what runs on the host, in this order: mounted volume, files, weights, service."""
        deployment = planned.deployment
        machine = self.machine
        taken = (
            machine.gpu_taken
            if isinstance(machine, resources.Instance)
            else pulumi.Output.from_input(deployment.machine.gpu)
        )
        files = of_taken(planned, taken, render)
        self.endpoint = self.machine.address.apply(
            lambda address: f"https://{deployment.access.hostname or _bracketed(address)}/v1"
        )
        contained = {
            secret for one in (planned, *planned.others) for file in render(one) for secret in file.secrets
        }
        reached: dict[str, Any] = {
            "instance_id": self.machine.id,
            "connection": self._connection,
            "unreachable": deployment.unreachable,
        }
        store: pulumi.Resource = self.machine
        if volume is not None and isinstance(self.machine, resources.Instance):
            store = resources.VolumeAttachment(
                f"{name}-attachment",
                **reached,
                volume_handle=volume.handle,
                volume_name=volume.volume_name,
                mount_kind=self.machine.mount_kind,
                mount_tag=volume.mount_tag,
                size_gb=volume.size_gb,
                opts=self._child(),
            )
        host_files = resources.Files(
            f"{name}-files",
            **reached,
            access=_access(deployment),
            files=of_files(files, lambda file: file.declared),
            attributes=of_files(files, lambda file: f"{file.mode} {file.owner}"),
            actions=of_files(files, lambda file: file.on_change),
            secrets={secret: value for secret, value in secrets.items() if secret in contained},
            values={"ca_certificate": self.ca_certificate},
            opts=self._child(store),
        )
        weights = resources.Weights(
            f"{name}-weights",
            **reached,
            repository=planned.repository,
            revision=planned.revision,
            directory=planned.weights_directory,
            opts=self._child(host_files),
        )
        self.service = resources.Service(
            f"{name}-service",
            **reached,
            engine_version=of_taken(planned, taken, lambda one: one.engine.version),
            engines=of_taken(planned, taken, _several_engines),
            serving_digest=host_files.serving_digest,
            weights_revision=planned.revision,
            weights_downloads=weights.downloads,
            access=_access(deployment),
            access_accepted=deployment.access.accepted,
            commands_follow=commands_follow,
            endpoint=self.endpoint,
            ca_certificate=self.ca_certificate,
            drain_timeout_s=deployment.drain_timeout_s,
            ready_timeout_s=deployment.ready_timeout_s,
            end_if_never_ready=volume is not None and not deployment.machine.keep_failed,
            opts=self._child(weights),
        )

    def _set_outputs(self, planned: Plan, volume: resources.Volume | None) -> None:
        deployment = planned.deployment
        self.model = pulumi.Output.from_input(planned.served_name)
        # With the gateway's limits, so that `bench` can warn before it reaches them.
        streams_per_key = requests_per_key(deployment)
        gateway = {"gateway": deployment.gateway.model_dump() | {"streams_per_key": streams_per_key}}
        machine = self.machine
        if volume is not None and isinstance(machine, resources.Instance):
            self.usd_per_hour = pulumi.Output.all(machine.usd_per_hour, volume.usd_per_hour).apply(
                lambda prices: round(sum(price or 0.0 for price in prices), 6)
            )
            self.plan = pulumi.Output.all(machine.usd_per_hour, machine.billed_as, machine.gpu_taken).apply(
                lambda rented: (
                    explain.summary(plan(_as_rented(planned, rented[1], rented[2]), paid=rented[0])) | gateway
                )
            )
        else:
            self.usd_per_hour = pulumi.Output.from_input(planned.usd_per_hour or 0.0)
            self.plan = pulumi.Output.from_input(explain.summary(planned) | gateway)
        self.evidence = pulumi.Output.all(self.service.evidence, pulumi.Output.all(**self._expiry)).apply(
            lambda known: known[0] | known[1]
        )
        self.register_outputs(
            {
                "endpoint": self.endpoint,
                "model": self.model,
                "caCertificate": self.ca_certificate,
                "apiKeys": self.api_keys,
                "usdPerHour": self.usd_per_hour,
                "plan": self.plan,
                "evidence": self.evidence,
            }
        )

    @classmethod
    def from_config(cls, name: str = "server", opts: pulumi.ResourceOptions | None = None) -> Self:
        """Declare the server that the stack's configuration describes.

        The namespace is `pulumi-vllm`: `server` is the block of the stack file, `keys` has API keys by name (secret),
        `hfToken` is a token for the model hub (secret), `notifyUrl` is the address for notifications (secret), and
        `tlsCertificate` and `tlsPrivateKey` (secret) are a custom certificate. `host` is a machine that somebody else
        made: address, user, port, host_key, triggers and private_key_file, or `hostPrivateKey` (secret). Only `server`
        is required.

        Args:
            name: name in the program.
            opts: Pulumi's resource options.

        Raises:
            pulumi.RunError: with every error in the configuration.
        """
        return cls(name, stack_config.read_args(), opts)

    def export_outputs(self) -> None:
        """Export the server's outputs from the stack. `pulumi-vllm smoke` and `bench` read them."""
        planned = self.plan.apply(explain.exported)
        outputs = {
            "endpoint": self.endpoint,
            "model": self.model,
            "ca_certificate": self.ca_certificate,
            "api_key": self.api_keys.apply(lambda keys: next(iter(keys.values()))),
            "api_keys": self.api_keys,
            "usd_per_hour": self.usd_per_hour,
            **{name: planned[name] for name in explain.EXPORTED},
            "evidence": self.evidence,
            "connection": self.connection_info,
        }
        for name, value in outputs.items():
            pulumi.export(name, value)

    @property
    def connection_info(self) -> pulumi.Output[dict[str, Any]]:
        """Address, user, keys and host key for SSH to the host (secret)."""
        return pulumi.Output.secret(pulumi.Output.from_input(self._connection))

    @property
    def connection(self) -> "pulumi_command.remote.ConnectionArgs":
        """The connection for pulumi-command's resources. It sets the host key, so that the plugin checks it."""
        return commands.connection(self._connection)

    def _child(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self, depends_on=list(after), delete_before_replace=not self._overlap
        )


def _as_rented(planned: Plan, billing: str | None, gpu: str | None) -> Deployment:
    """Return the deployment with billing and GPU of the rented machine, which may be those that come second."""
    deployment = planned.deployment.on(gpu) if gpu in planned.preferred else planned.deployment
    if billing is None:  # absent from the state of an earlier version
        return deployment
    fallback = deployment.machine.fallback if billing == "spot" else None
    machine = deployment.machine.model_copy(update={"billing": billing, "fallback": fallback})
    return deployment.model_copy(update={"machine": machine})


def _alternatives(planned: Plan) -> list[str]:
    """Return machines with the same capacity. The preview compares their price with today's offers."""
    from pulumi_vllm.plan.alternatives import alternatives  # noqa: PLC0415 (only a program pays for it)

    return [f"{count}x {gpu}" for gpu, count in alternatives(planned)]


def _last_up(deployment: Deployment) -> str | None:
    """Return the time of this `pulumi up`, from which the period counts. A preview shows no difference for it.

    An update by `pulumi-vllm reconcile` goes on with the period: nobody has asked for a new one.
    """
    if deployment.expires is None:
        return None
    if earlier := os.environ.get(LAST_UP_VARIABLE):
        return earlier
    return None if pulumi.runtime.is_dry_run() else datetime.now(UTC).isoformat(timespec="seconds")


def _several_engines(planned: Plan) -> Any:
    """Return the number of engines, or None for the usual one."""
    return planned.engines if planned.engines > 1 else None


def _access(deployment: Deployment) -> dict[str, Any]:
    """Return the address ranges in the form of the resources' input `access`."""
    declared = deployment.access
    if deployment.machine.is_own:  # whose rules leave SSH as it is
        return {"allow": list(declared.allow), "sshAllow": ["0.0.0.0/0", "::/0"]}
    ssh = {} if declared.ssh_allow is None else {"sshAllow": list(declared.ssh_allow)}
    return {"allow": list(declared.allow), **ssh}


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
