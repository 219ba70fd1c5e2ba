"""The gateway's CA and the certificates that it issues. It is imported on use: cryptography takes 0.1 s."""

import datetime as dt
import ipaddress
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes

from pulumi_vllm.provider.plugin.resource import Values

_CA_DAYS = 3650
_CERTIFICATE_DAYS = 365
_LONGEST_COMMON_NAME = 64  # RFC 5280, ub-common-name


def new_authority(common_name: str) -> tuple[int, Values]:
    """Create a P-256 key and a self-signed certificate. Return its serial number and the outputs of Authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
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
    return certificate.serial_number, outputs


def issue(ca_certificate: str, ca_key: str, names: list[str]) -> Values:
    """Issue a certificate for these names, loopback and localhost. Return the outputs of Certificate."""
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
    # Valid from an hour ago, because the clock of a host may be slow.
    now = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    return now, now + dt.timedelta(days=days)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text[:_LONGEST_COMMON_NAME])])


def certificate_pem(certificate: x509.Certificate) -> str:
    """Format a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: PrivateKeyTypes) -> str:
    """Format a private key as unencrypted PEM (PKCS #8)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
