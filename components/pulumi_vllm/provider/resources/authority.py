"""CA and certificates of the gateway, and API keys: random or signed values that outlive instances."""

import datetime as dt
import secrets

from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Resource, Values

_WARN_BEFORE_DAYS = 365  # every client needs the new CA file
RENEW_BEFORE_DAYS = 30


class StateOnlyResource(Resource):
    """A resource that exists in state only."""

    cannot_import = (
        "its secret is in the state of its stack only, so it cannot be imported; restore an export of the state with "
        "`pulumi stack import`, or let `pulumi up` create a new one"
    )

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return the state."""
        return Reading(self.outputs_in(state), inputs)


class Authority(StateOnlyResource):
    """`vllm:index:Authority`."""

    token = "vllm:index:Authority"
    description = "CA of the gateway. It outlives the instance, so clients keep the same CA file."
    inputs = {
        # Clients pin the certificate. Another name, as after `pulumi stack rename`, is no reason for a new one.
        "commonName": Property(
            "string",
            "Common name in the CA certificate. Only a new CA gets another one.",
            required=True,
            silent=True,
        )
    }
    outputs = {
        "certificate": Property("string", "CA certificate in PEM format."),
        "privateKey": Property("string", "Private key of the CA in PEM format.", secret=True),
        "expires": Property("string", "Date on which the CA expires (ISO 8601)."),
    }

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Create a P-256 key and a self-signed certificate."""
        # The plugin starts without cryptography, which takes 0.1 s to import.
        from pulumi_vllm.provider.resources.issued_certificates import new_authority

        serial_number, outputs = new_authority(str(new["commonName"]))
        return f"ca-{serial_number:x}"[:19], outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Warn a year ahead, because every client needs the new CA file."""
        left = days_left(state)
        if left < _WARN_BEFORE_DAYS:
            await call.warn(
                f"the gateway's CA expires on {state['expires']} (in {left} days); `pulumi up --replace '{call.urn}'` "
                "creates a new one, which every client needs"
            )
        return await super().read(call, resource_id, state, inputs)


class Certificate(StateOnlyResource):
    """`vllm:index:Certificate`."""

    token = "vllm:index:Certificate"
    description = (
        "Certificate of the gateway for one address, issued by an Authority. The first `pulumi up` in the last "
        f"{RENEW_BEFORE_DAYS} days renews it."
    )
    inputs = {
        "authorityCertificate": Property(
            "string", "CA certificate in PEM format.", required=True, replaces=True
        ),
        "authorityKey": Property(
            "string", "Private key of the CA in PEM format.", required=True, secret=True, silent=True
        ),
        "address": Property("string", "IP address or DNS name of the host.", required=True, replaces=True),
        "hostname": Property("string", "DNS name that clients use in addition to the address."),
        "fresh": Property(
            "boolean", f"Whether the certificate is valid for {RENEW_BEFORE_DAYS} more days (default: true)."
        ),
    }
    outputs = {
        "pem": Property("string", "Certificate and private key in one PEM text, for HAProxy.", secret=True),
        "expires": Property("string", "Date on which the certificate expires (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Default `fresh` to true, so that a certificate near its expiry shows as a diff."""
        new.setdefault("fresh", True)
        return []

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Return unknown outputs, so that the preview shows the change of the file and the reload of the gateway."""
        return dict.fromkeys(self.outputs)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Issue a certificate for the address, the hostname, loopback and localhost."""
        # The plugin starts without cryptography, which takes 0.1 s to import.
        from pulumi_vllm.provider.resources.issued_certificates import issue

        names = [str(name) for name in (new["address"], new.get("hostname")) if name]
        ca_certificate, ca_key = str(reveal(new["authorityCertificate"])), str(reveal(new["authorityKey"]))
        return f"leaf-{new['address']}", issue(ca_certificate, ca_key, names)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Issue a new certificate, near the expiry of the old one or for another name."""
        return (await self.create(call, new))[1]

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Report a certificate near its expiry as not fresh, so that the next `pulumi up` renews it."""
        left = days_left(state)
        if left < RENEW_BEFORE_DAYS:
            await call.warn(
                f"the gateway's certificate expires on {state['expires']} (in {left} days); `pulumi up` renews it"
            )
        return await super().read(call, resource_id, state, {**inputs, "fresh": left >= RENEW_BEFORE_DAYS})


class ApiKey(StateOnlyResource):
    """`vllm:index:ApiKey`."""

    token = "vllm:index:ApiKey"
    description = (
        "A random key of 256 bits that outlives the instance, for a client or for the readiness check."
    )
    inputs = {"prefix": Property("string", "Prefix of the key, such as sk-.", required=True, replaces=True)}
    outputs = {"key": Property("string", "The key.", secret=True)}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Generate 32 random bytes in URL-safe base64."""
        return f"key-{secrets.token_hex(4)}", {"key": f"{new['prefix']}{secrets.token_urlsafe(32)}"}


def days_left(state: Values) -> int:
    """Return the days until the certificate in a state expires. A negative number means that it has expired."""
    return (dt.date.fromisoformat(str(state["expires"])) - dt.datetime.now(dt.UTC).date()).days
