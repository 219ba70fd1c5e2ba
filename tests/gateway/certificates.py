"""Certificates from another authority, for the tests."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def named(name):
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def general(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def issue(name, names=(), issuer=None, *, start=NOW - DAY, end=NOW + 90 * DAY, key=None, usage=None, ca=None):
    """A certificate and its key, signed by `issuer` or self-signed."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer, by = (issuer[1], issuer[0].subject) if issuer else (key, named(name))
    made = x509.CertificateBuilder(by, named(name), key.public_key(), x509.random_serial_number(), start, end)
    made = made.add_extension(
        x509.BasicConstraints(ca=not names if ca is None else ca, path_length=None), critical=True
    )
    if usage:
        made = made.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    if names:
        made = made.add_extension(
            x509.SubjectAlternativeName([general(one) for one in names]), critical=False
        )
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return made.sign(signer, digest), key


def pem(*certificates):
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def key_pem(key, password=None):
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, hidden).decode()
