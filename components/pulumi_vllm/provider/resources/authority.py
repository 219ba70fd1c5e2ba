"""CA and certificates of the gateway, and API keys: random or signed values that outlive machines."""

import datetime as dt
import ipaddress
import secrets
from typing import TYPE_CHECKING, cast

from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Resource, Values

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        PrivateKeyTypes,
    )

_CA_DAYS = 3650
_CERTIFICATE_DAYS = 365
RENEW_BEFORE_DAYS = 30
_LONGEST_COMMON_NAME = 64  # RFC 5280, ub-common-name


class StateOnlyResource(Resource):
    """A resource that exists in state only."""

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Return the state."""
        return Reading(self.outputs_in(state), inputs)


class Authority(StateOnlyResource):
    """`vllm:index:Authority`."""

    token = "vllm:index:Authority"
    description = "CA of the gateway. It outlives the machine, so clients keep the same CA file."
    inputs = {
        "commonName": Property("string", "Common name in the CA certificate.", required=True, replaces=True)
    }
    outputs = {
        "certificate": Property("string", "CA certificate in PEM format."),
        "privateKey": Property("string", "Private key of the CA in PEM format.", secret=True),
        "expires": Property("string", "Date on which the CA expires (ISO 8601)."),
    }

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Create a P-256 key and a self-signed certificate."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(str(new["commonName"]))
        start, end = _validity(_CA_DAYS)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        outputs = {
            "certificate": certificate_pem(certificate),
            "privateKey": key_pem(key),
            "expires": end.date().isoformat(),
        }
        return f"ca-{certificate.serial_number:x}"[:19], outputs

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Warn a year ahead, because every client needs the new CA file."""
        left = days_left(state)
        if left < _CERTIFICATE_DAYS:
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
        "address": Property("string", "IP address or DNS name of the machine.", required=True, replaces=True),
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
        names = [str(name) for name in (new["address"], new.get("hostname")) if name]
        ca_certificate, ca_key = str(reveal(new["authorityCertificate"])), str(reveal(new["authorityKey"]))
        return f"leaf-{new['address']}", _issue(ca_certificate, ca_key, names)

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
        "A random key of 256 bits that outlives the machine, for a client or for the readiness check."
    )
    inputs = {"prefix": Property("string", "Prefix of the key, such as sk-.", required=True, replaces=True)}
    outputs = {"key": Property("string", "The key.", secret=True)}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Generate 32 random bytes in URL-safe base64."""
        return f"key-{secrets.token_hex(4)}", {"key": f"{new['prefix']}{secrets.token_urlsafe(32)}"}


def days_left(state: Values) -> int:
    """Return the days until the certificate in a state expires. A negative number means that it has expired."""
    return (dt.date.fromisoformat(str(state["expires"])) - dt.datetime.now(dt.UTC).date()).days


def _issue(ca_certificate: str, ca_key: str, names: list[str]) -> Values:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = x509.load_pem_x509_certificate(ca_certificate.encode())
    signer = cast(
        "CertificateIssuerPrivateKeyTypes", serialization.load_pem_private_key(ca_key.encode(), None)
    )
    key = ec.generate_private_key(ec.SECP256R1())
    start, end = _validity(_CERTIFICATE_DAYS)
    general_names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    general_names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    for text in reversed(names):
        try:
            general_names.insert(0, x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            general_names.insert(0, x509.DNSName(text))
    certificate = (
        x509.CertificateBuilder(
            authority.subject,
            _name("vllm gateway"),
            key.public_key(),
            x509.random_serial_number(),
            start,
            end,
        )
        .add_extension(x509.SubjectAlternativeName(general_names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return {"pem": certificate_pem(certificate) + key_pem(key), "expires": end.date().isoformat()}


def _validity(days: int) -> tuple[dt.datetime, dt.datetime]:
    # Valid from an hour ago, because the clock of a machine may be slow.
    now = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    return now, now + dt.timedelta(days=days)


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text[:_LONGEST_COMMON_NAME])])


def certificate_pem(certificate: "x509.Certificate") -> str:
    """Format a certificate as PEM."""
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: "PrivateKeyTypes") -> str:
    """Format a private key as unencrypted PEM (PKCS #8)."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
