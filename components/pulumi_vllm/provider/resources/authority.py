"""What has to be random or signed and must survive machines: the gateway's CA, its leaves, and keys."""

import datetime as dt
import ipaddress
import secrets
from typing import Any

from pulumi_vllm.provider.plugin.resource import Call, Failure, Property, Reading, Resource, Values, reveal

_CA_DAYS = 3650
_LEAF_DAYS = 365
RENEW_DAYS = 30


class Kept(Resource):
    """Made once, kept in state; nothing outside to look at."""

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """State is all there is."""
        return Reading({name: state.get(name) for name in self.outputs}, inputs)


class Authority(Kept):
    """`vllm:index:Authority`."""

    token = "vllm:index:Authority"
    description = "Certificate authority of the gateway. Survives machines, so clients keep one CA file."
    inputs = {"commonName": Property("string", "Name in the CA certificate.", required=True, replaces=True)}
    outputs = {
        "certificate": Property("string", "CA certificate, PEM."),
        "privateKey": Property("string", "CA key, PEM.", secret=True),
        "expires": Property("string", "Last day of the CA (ISO 8601)."),
    }

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """A P-256 key and its self-signed certificate."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(str(new["commonName"]))
        start, end = _span(_CA_DAYS)
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
        """Warns a year ahead: a new CA is a new file for every client."""
        left = days_left(state)
        if left < _LEAF_DAYS:
            await call.warn(
                f"the gateway's CA ends on {state['expires']} ({left} days); "
                f"`pulumi up --replace '{call.urn}'` makes a new one, which every client needs"
            )
        return await super().read(call, resource_id, state, inputs)


class Certificate(Kept):
    """`vllm:index:Certificate`."""

    token = "vllm:index:Certificate"
    description = (
        "Gateway certificate for one address, issued by an Authority; renewed 30 days before it expires."
    )
    inputs = {
        "authorityCertificate": Property("string", "CA certificate, PEM.", required=True, replaces=True),
        "authorityKey": Property("string", "CA key, PEM.", required=True, secret=True, silent=True),
        "address": Property("string", "IP address or DNS name of the machine.", required=True, replaces=True),
        "hostname": Property("string", "A DNS name that clients use, beside the address."),
        "fresh": Property("boolean", "Whether it is far from its end (default true)."),
    }
    outputs = {
        "pem": Property("string", "Leaf certificate and its key, PEM, as HAProxy reads them.", secret=True),
        "expires": Property("string", "Last day (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Wanted is always fresh."""
        new.setdefault("fresh", True)
        return []

    async def preview_update(self, call: Call, old: Values, new: Values) -> Values:
        """Another one, not known yet: so the preview shows the file and the reload that follow."""
        return dict.fromkeys(self.outputs)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Issue a leaf for the address, for loopback and for localhost."""
        names = [str(name) for name in (new["address"], new.get("hostname")) if name]
        outputs = _issue(reveal(new["authorityCertificate"]), reveal(new["authorityKey"]), names)
        return f"leaf-{new['address']}", outputs

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Issue it anew when its end is near, or for another name."""
        return (await self.create(call, new))[1]

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """A leaf near its end is a difference, and so is issued anew by the next `up`."""
        left = days_left(state)
        if left < RENEW_DAYS:
            await call.warn(
                f"the gateway's certificate ends on {state['expires']} ({left} days); `pulumi up` issues another"
            )
        return await super().read(call, resource_id, state, {**inputs, "fresh": left >= RENEW_DAYS})


class ApiKey(Kept):
    """`vllm:index:ApiKey`."""

    token = "vllm:index:ApiKey"
    description = (
        "A random key of 256 bits that survives machines: a client's, or the readiness check's token."
    )
    inputs = {"prefix": Property("string", "What the key starts with.", required=True, replaces=True)}
    outputs = {"key": Property("string", "The key.", secret=True)}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """32 random bytes, URL-safe."""
        return f"key-{secrets.token_hex(4)}", {"key": f"{new['prefix']}{secrets.token_urlsafe(32)}"}


def days_left(state: Values) -> int:
    """Days until a certificate in state ends; below 0 it has ended."""
    return (dt.date.fromisoformat(str(state["expires"])) - dt.datetime.now(dt.UTC).date()).days


def _issue(authority_pem: str, authority_key: str, wanted: list[str]) -> Values:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = x509.load_pem_x509_certificate(authority_pem.encode())
    signer: Any = serialization.load_pem_private_key(authority_key.encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    start, end = _span(_LEAF_DAYS)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    for text in reversed(wanted):
        try:
            names.insert(0, x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.insert(0, x509.DNSName(text))
    certificate = (
        x509.CertificateBuilder(
            authority.subject,
            _name("vllm gateway"),
            key.public_key(),
            x509.random_serial_number(),
            start,
            end,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return {"pem": certificate_pem(certificate) + key_pem(key), "expires": end.date().isoformat()}


def _span(days: int) -> tuple[dt.datetime, dt.datetime]:
    # A machine's clock may lag: valid from an hour ago.
    now = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    return now, now + dt.timedelta(days=days)


def _name(text: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text[:64])])


def certificate_pem(certificate: Any) -> str:
    """One certificate as PEM text."""
    from cryptography.hazmat.primitives import serialization

    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


def key_pem(key: Any) -> str:
    """A private key as PEM text (PKCS #8), in clear."""
    from cryptography.hazmat.primitives import serialization

    return str(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    )
