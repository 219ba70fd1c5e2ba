"""The component: one served model on one machine, from the disk to the gateway."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pulumi

from pulumi_vllm.component import commands, discovery, gateway_certificate
from pulumi_vllm.component import generated as resources
from pulumi_vllm.component.arguments import ServerArgs, decide, key_mistakes
from pulumi_vllm.plan import Plan, explain, plan
from pulumi_vllm.plan.config import READINESS_KEY, Deployment
from pulumi_vllm.render import HostFile, cloud_init, render

if TYPE_CHECKING:
    import pulumi_command


class Server(pulumi.ComponentResource):
    """A vLLM server on a rented GPU machine: volume, machine, pinned weights, systemd service, gateway."""

    endpoint: pulumi.Output[str]
    """Base URL of the OpenAI-compatible API, ending in /v1."""
    model: pulumi.Output[str]
    """Name of the model in requests."""
    ca_certificate: pulumi.Output[str]
    """CA certificate of the gateway, PEM: what clients verify it with. With a certificate of your own, its chain."""
    api_keys: pulumi.Output[dict[str, str]]
    """API keys by name (secret)."""
    usd_per_hour: pulumi.Output[float]
    """Price of machine and disk, USD per hour."""
    plan: pulumi.Output[dict[str, Any]]
    """What was decided, and why: machine, flags, memory budget."""
    evidence: pulumi.Output[dict[str, Any]]
    """What is running: versions, revision, readiness and phase timings, and when the certificates end."""

    def __init__(self, name: str, args: ServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server.

        Args:
            name: name in the program; children are called `<name>-machine`, `<name>-volume` and so on.
            args: see ServerArgs.
            opts: Pulumi's resource options.

        Raises:
            pulumi.RunError: the arguments have mistakes (all are listed), do not fit, or a flag can't work.
        """
        super().__init__("vllm:index:Server", name, {}, opts)
        decided = decide(args)
        discovery.warn_if_hidden()
        deployment, machine = decided.deployment, decided.deployment.machine
        files = render(decided)

        given = gateway_certificate.given(name, args, deployment.access.hostname, self._child())
        first = [given] if given else []  # a certificate that is refused is refused before anything is made
        key = resources.SshKey(
            f"{name}-ssh", private_key=args.get("ssh_private_key"), opts=self._child(*first)
        )
        volume = resources.Volume(
            f"{name}-volume",
            size_gb=deployment.storage_gb,
            gpu=machine.gpu,
            count=machine.count,
            billing=machine.billing,
            fallback=machine.fallback,
            region=machine.region,
            max_usd_per_hour=machine.max_usd_per_hour,
            opts=self._child(*first),
        )
        self.machine = resources.Instance(
            f"{name}-machine",
            gpu=machine.gpu,
            count=machine.count,
            billing=machine.billing,
            fallback=machine.fallback,
            provider=volume.provider,
            region=volume.placement,
            max_usd_per_hour=machine.max_usd_per_hour,
            ssh_key_id=key.key_id,
            ssh_public_key=key.public_key,
            ssh_private_key=key.private_key_pem,
            cloud_init=cloud_init(decided),
            drain_timeout_s=deployment.drain_timeout_s,
            alternatives=_alternatives(decided),
            opts=self._child(),
        )
        self._connection: dict[str, Any] = {
            "host": self.machine.address,
            "port": self.machine.port,
            "user": self.machine.user,
            "hostKey": self.machine.host_key,
            "privateKey": key.private_key_pem,
        }
        attachment = resources.VolumeAttachment(
            f"{name}-attachment",
            instance_id=self.machine.id,
            volume_handle=volume.handle,
            volume_name=volume.volume_name,
            mount_kind=self.machine.mount_kind,
            mount_tag=volume.mount_tag,
            size_gb=volume.size_gb,
            connection=self._connection,
            opts=self._child(),
        )
        authority = resources.Authority(
            f"{name}-ca", common_name=f"{name} {pulumi.get_stack()}", opts=self._child()
        )
        certificate = given or resources.Certificate(
            f"{name}-certificate",
            authority_certificate=authority.certificate,
            authority_key=authority.private_key,
            address=self.machine.address,
            hostname=deployment.access.hostname,
            opts=self._child(),
        )
        self.ca_certificate = given.chain if given else authority.certificate
        self.api_keys = self._keys(name, deployment.access.keys, args.get("keys"))
        readiness = resources.ApiKey(f"{name}-readiness", prefix="readiness-", opts=self._child()).key
        secrets = {
            "readiness_token": readiness,
            "keys_map": pulumi.Output.all(self.api_keys, readiness).apply(
                lambda all_: _keys_map(all_[0], all_[1])
            ),
            "tls_pem": certificate.pem,
            "hf_token": args.get("hf_token") or "",
        }
        host_files = resources.Files(
            f"{name}-files",
            instance_id=self.machine.id,
            connection=self._connection,
            files={file.path: file.text for file in files},
            attributes={file.path: f"{file.mode} {file.owner}" for file in files},
            actions={file.path: file.on_change for file in files},
            secrets={secret: value for secret, value in secrets.items() if secret in _asked(files)},
            values={"ca_certificate": self.ca_certificate},
            opts=self._child(attachment),
        )
        weights = resources.Weights(
            f"{name}-weights",
            instance_id=self.machine.id,
            connection=self._connection,
            repository=decided.repository,
            revision=decided.revision,
            directory=decided.weights_directory,
            drain_timeout_s=deployment.drain_timeout_s,
            opts=self._child(host_files),
        )
        self.service = resources.Service(
            f"{name}-service",
            instance_id=self.machine.id,
            connection=self._connection,
            engine_version=decided.engine.version,
            serving_digest=host_files.serving_digest,
            weights_revision=decided.revision,
            drain_timeout_s=deployment.drain_timeout_s,
            opts=self._child(weights),
        )
        # The Commands by the command's name, for a program that needs one's stdout.
        self.commands = commands.declare(
            self,
            name,
            args.get("commands") or [],
            self._connection,
            machine=self.machine.id,
            ready=self.service,
        )

        self.endpoint = self.machine.address.apply(
            lambda address: f"https://{deployment.access.hostname or _bracketed(address)}/v1"
        )
        self.model = pulumi.Output.from_input(decided.served_name)
        self.usd_per_hour = pulumi.Output.all(self.machine.usd_per_hour, volume.usd_per_hour).apply(
            lambda prices: round(sum(price or 0.0 for price in prices), 6)
        )
        # With the gateway's limits: a client that measures says before it begins that it will meet them.
        gateway = deployment.gateway.model_dump()
        self.plan = pulumi.Output.all(self.machine.usd_per_hour, self.machine.billed_as).apply(
            lambda taken: (
                explain.summary(plan(_billed(deployment, taken[1]), paid=taken[0])) | {"gateway": gateway}
            )
        )
        self.evidence = pulumi.Output.all(
            self.service.evidence, certificate.expires, authority.expires
        ).apply(lambda seen: {**seen[0], "certificate_expires": seen[1], "ca_expires": seen[2]})
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

    @property
    def connection_info(self) -> pulumi.Output[dict[str, Any]]:
        """How to reach the host over SSH, host key included (secret)."""
        return pulumi.Output.secret(pulumi.Output.from_input(self._connection))

    @property
    def connection(self) -> "pulumi_command.remote.ConnectionArgs":
        """The host for pulumi-command's resources, with the host key set: without it that plugin checks none."""
        return commands.connection(self._connection)

    def _child(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(after))

    def _keys(self, name: str, names: tuple[str, ...], given: Any) -> pulumi.Output[dict[str, str]]:
        """Every named key: the given value, or a random one that survives machines."""
        # Which names a map has that is not known yet shows later: each gets a random key, which may stay unused.
        known = given if isinstance(given, Mapping) else {}
        made = {
            key: resources.ApiKey(f"{name}-key-{key}", prefix="sk-", opts=self._child()).key
            for key in names
            if known.get(key) is None
        }

        def checked(values: Any) -> Any:
            if mistakes := key_mistakes(values, names):
                raise pulumi.RunError("\n".join(mistakes))
            return values or {}

        def value_of(key: str, value: Any) -> Any:
            if value is None:
                raise pulumi.RunError(
                    f"keys.{key}: holds no value; set one, or leave it out, and it gets a random key"
                )
            return checked({key: value})[key]

        # Looked at one by one, before they are joined with what is unknown in a preview, such as a random key:
        # otherwise a mistake shows only once the machine is rented.
        if known:
            given = {
                key: pulumi.Output.from_input(value).apply(partial(value_of, key))
                for key, value in known.items()
                if value is not None
            }
        else:
            given = pulumi.Output.from_input(given).apply(checked)

        def chosen(both: Sequence[Any]) -> dict[str, str]:
            values, random = both
            return {key: values[key] if values.get(key) is not None else random[key] for key in names}

        return pulumi.Output.secret(pulumi.Output.all(given, made).apply(chosen))


def _billed(deployment: Deployment, billing: str | None) -> Deployment:
    """The deployment on the machine that was really taken: the fallback of spot is billed on demand."""
    if billing is None:  # a state of an earlier version does not know it
        return deployment
    fallback = deployment.machine.fallback if billing == "spot" else None
    machine = deployment.machine.model_copy(update={"billing": billing, "fallback": fallback})
    return deployment.model_copy(update={"machine": machine})


def _alternatives(decided: Plan) -> list[str]:
    """Other machines that do the same, for the preview to compare with today's offers."""
    from pulumi_vllm.plan.alternatives import alternatives  # noqa: PLC0415 (only a program pays for it)

    return [f"{count}x {gpu}" for gpu, count in alternatives(decided)]


def _keys_map(keys: Mapping[str, str], readiness: str) -> str:
    """HAProxy's map: sha256 of a key, and whose it is."""
    named = {**keys, READINESS_KEY: readiness}
    rows = [f"{hashlib.sha256(value.encode()).hexdigest()} {name}" for name, value in sorted(named.items())]
    return "\n".join(rows) + "\n"


def _asked(files: Sequence[HostFile]) -> set[str]:
    return {secret for file in files for secret in file.secrets}


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
