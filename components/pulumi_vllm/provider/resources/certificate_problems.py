"""Problems of a custom certificate. It is imported on use: cryptography takes 0.1 s."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.provider.resources.issued_certificates import certificate_pem, key_pem

Extension = TypeVar("Extension", bound=x509.ExtensionType)

# OpenSSL at security level 2, the default of Debian and Ubuntu, loads no shorter RSA key:
# SSL_CTX_set_security_level(3).
_MIN_RSA_BITS = 2048
# The curves that every client supports (RFC 8446, 4.2.3 and 4.2.7). The Brainpool curves are not among them.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
# DER of the object id of a prime field. It occurs only where a curve is given by its parameters instead of its name
# (RFC 3279, 2.3.5), which OpenSSL refuses.
_PRIME_FIELD = bytes.fromhex("06072a8648ce3d0101")

PRIVATE_KEY_LABEL = "PRIVATE KEY"  # in the first line of every kind of private key in PEM (RFC 7468)
CONTAINS_KEY = (
    "the text of the custom certificate holds a private key, and a certificate is not secret; pass the key as "
    "tls_private_key (tlsPrivateKey), and replace the pair if this one was stored unencrypted"
)


def outputs(certificate: str, private_key: str) -> Values:
    """Format the outputs from the parsed certificates and key, without anything else that the texts hold."""
    certificates = _chain(certificate)
    key = serialization.load_pem_private_key(private_key.encode(), None)
    chain = "".join(map(certificate_pem, certificates))
    expires = min(one.not_valid_after_utc for one in certificates)
    return {"pem": chain + key_pem(key), "chain": chain, "expires": str(expires.date())}


def problems(certificate: str, private_key: str, hostname: str) -> list[str]:
    """Return a message for each problem of the certificate. No message contains a part of the key."""
    if PRIVATE_KEY_LABEL in certificate:
        return [CONTAINS_KEY]
    try:
        leaf, *others = _chain(certificate)
        _ = leaf.extensions  # parsed on first use
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ["the custom certificate can't be read; pass PEM text: the certificate, then its chain"]
    found = [*_key_problems(leaf, private_key), *_server_problems(leaf, hostname)]
    for one in (leaf, *others):
        name = "the custom certificate" if one is leaf else f"{_subject(one)} of its chain"
        found += _validity_problems(name, one)
    for issued, issuer in zip([leaf, *others], others, strict=False):
        found += _chain_problems(issued, issuer)
    return found


def _key_problems(leaf: x509.Certificate, private_key: str) -> Iterator[str]:
    try:
        key = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield "the private key of the custom certificate can't be read; pass PEM text without a passphrase"
        return
    public = _public_key(leaf)
    if public is not None and key.public_key() != public:
        yield (
            "the private key does not belong to the custom certificate; pass the matching key, and the certificate "
            "before its chain"
        )


def _server_problems(leaf: x509.Certificate, hostname: str) -> Iterator[str]:
    """Check that the certificate is for a server of this name."""
    names = _names(leaf)
    if not any(_covers(name, hostname) for name in names):
        certified = ", ".join(names) or "no name"
        yield f"the custom certificate is for {certified}, not for {hostname}; get one for access.hostname"
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        yield "the custom certificate is a CA certificate, which many clients refuse; get one for a server"
    usages, oid = _extension(leaf, x509.ExtendedKeyUsage), x509.oid.ExtendedKeyUsageOID
    if usages is not None and not {oid.SERVER_AUTH, oid.ANY_EXTENDED_KEY_USAGE} & set(usages):
        yield "the custom certificate is not for a server; get one with the extended key usage serverAuth"


def _validity_problems(name: str, certificate: x509.Certificate) -> Iterator[str]:
    """Check the dates and the kind of key of one certificate."""
    now = dt.datetime.now(dt.UTC)
    if now > certificate.not_valid_after_utc:
        yield f"{name} expired on {certificate.not_valid_after_utc.date()}; get a new one"
    if now < certificate.not_valid_before_utc:
        yield f"{name} is not valid before {certificate.not_valid_before_utc.date()}; check the clock of this computer"
    key = _public_key(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            yield f"{name} has an RSA key of {key.key_size} bits, which HAProxy refuses; use {_MIN_RSA_BITS} or more"
    elif not isinstance(key, ed25519.Ed25519PublicKey) and (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or key.curve.name not in _CURVES
        or _PRIME_FIELD in certificate.tbs_certificate_bytes
    ):
        yield f"{name} has a kind of key that many clients don't support; use RSA, or ECDSA on P-256 or P-384"


def _chain_problems(issued: x509.Certificate, issuer: x509.Certificate) -> Iterator[str]:
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        yield (
            f"the chain is out of order: {_subject(issuer)} did not sign the certificate before it; "
            "put each certificate before that of its issuer"
        )
    except UnsupportedAlgorithm:
        return  # _validity_problems reports the kind of key


def _chain(text: str) -> list[x509.Certificate]:
    return list(x509.load_pem_x509_certificates(text.encode()))


def _public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    """Return the public key, or None for an unsupported kind of key."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names(leaf: x509.Certificate) -> list[str]:
    names = _extension(leaf, x509.SubjectAlternativeName) or ()
    return [str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def _covers(name: str, hostname: str) -> bool:
    """Whether a name covers the hostname. A wildcard stands for the whole first label (RFC 6125)."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(hostname)
    except ValueError:
        pass
    name = name.lower()
    if name.startswith("*."):
        return hostname.partition(".")[2] == name[2:]
    return name == hostname
