"""A certificate of the user's own for the gateway, looked at before anything is made."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from typing import Any

from pulumi_vllm.provider.plugin.resource import Call, Failure, Property, Reading, Values, has_unknown, reveal
from pulumi_vllm.provider.resources.authority import RENEW_DAYS, Kept, certificate_pem, days_left, key_pem

# OpenSSL at security level 2, as Debian and Ubuntu build it, loads no shorter RSA key (SSL_CTX_set_security_level(3)).
_RSA_BITS = 2048
# What every client takes (RFC 8446, 4.2.3 and 4.2.7); the Brainpool curves are none of them.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
# DER of the id of a prime field: only a curve that is spelled out holds it (RFC 3279, 2.3.5), which OpenSSL refuses.
_FIELD = bytes.fromhex("06072a8648ce3d0101")

_KEY = "PRIVATE KEY"  # in the first line of every kind of private key in PEM (RFC 7468)
_HOLDS_A_KEY = (
    "the custom certificate's text holds a private key, and a certificate is no secret; "
    "give the key as tls_private_key (tlsPrivateKey) alone, and a new pair if this one was stored in clear"
)


class CustomCertificate(Kept):
    """`vllm:index:CustomCertificate`."""

    token = "vllm:index:CustomCertificate"
    description = (
        "A certificate of your own for the gateway: whole, of its key, in date and for the name, or refused."
    )
    inputs = {
        "certificate": Property("string", "PEM: the leaf first, then its chain.", required=True),
        "privateKey": Property(
            "string", "The leaf's key, PEM without a passphrase.", required=True, secret=True
        ),
        "hostname": Property("string", "Name that clients use.", required=True),
    }
    outputs = {
        "pem": Property("string", "Certificate, chain and key, as HAProxy reads them.", secret=True),
        "chain": Property("string", "The certificates alone, PEM: leaf first."),
        "expires": Property("string", "First day on which one of them ends (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Everything that is wrong with it, without a word of the key."""
        certificate, key = str(reveal(new["certificate"])), str(reveal(new["privateKey"]))
        if has_unknown(new):
            return [Failure("", _HOLDS_A_KEY)] if _KEY in certificate else []
        return [Failure("", sentence) for sentence in mistakes(certificate, key, str(new["hostname"]))]

    async def preview(self, call: Call, new: Values) -> Values:
        """All of it, where the inputs are known; None, where they are not, is unknown after an update too."""
        return dict.fromkeys(self.outputs) if has_unknown(new) else _outputs(new)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Put together what the gateway reads."""
        return f"given-{new['hostname']}", _outputs(new)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """The same."""
        return (await self.create(call, new))[1]

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Only you can get another one: warn in time."""
        left = days_left(state)
        if left < RENEW_DAYS:
            await call.warn(
                f"the gateway's certificate expires on {state['expires']} (in {left} days); "
                "set a new one and run `pulumi up`"
            )
        return await super().read(call, resource_id, state, inputs)


def _outputs(new: Values) -> Values:
    """Written anew from what was parsed: whatever else the texts hold goes nowhere."""
    from cryptography.hazmat.primitives import serialization

    certificates = _chain(str(reveal(new["certificate"])))
    key = serialization.load_pem_private_key(str(reveal(new["privateKey"])).encode(), None)
    chain = "".join(map(certificate_pem, certificates))
    ends = min(one.not_valid_after_utc for one in certificates)
    return {"pem": chain + key_pem(key), "chain": chain, "expires": str(ends.date())}


def mistakes(certificate: str, private_key: str, hostname: str) -> list[str]:
    """What is wrong, one sentence each; none holds anything of the key."""
    from cryptography import x509

    if _KEY in certificate:
        return [_HOLDS_A_KEY]
    try:
        leaf, *others = _chain(certificate)
        _ = leaf.extensions  # read as late as they are asked for
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ["the custom certificate can't be read; give PEM text, the leaf first and then its chain"]
    found = [*_of_the_key(leaf, private_key), *_of_the_leaf(leaf, hostname)]
    for one in (leaf, *others):
        found += _of_each("the custom certificate" if one is leaf else f"{_subject(one)} of its chain", one)
    for below, above in zip([leaf, *others], others, strict=False):
        found += _of_a_link(below, above)
    return found


def _of_the_key(leaf: Any, private_key: str) -> Iterator[str]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key: Any = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield "the custom certificate's key can't be read; give it as PEM without a passphrase"
        return
    public = _public_key(leaf)
    if public is not None and key.public_key() != public:
        yield "the given key is not the certificate's; give the pair, the leaf's certificate first"


def _of_the_leaf(leaf: Any, hostname: str) -> Iterator[str]:
    """Its names, and that it is a server's."""
    from cryptography import x509

    names = _names(leaf)
    if not any(_covers(name, hostname) for name in names):
        said = ", ".join(names) or "no name at all"
        yield f"the custom certificate is for {said}, not for {hostname}; get one for access.hostname"
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        yield "the custom certificate is a CA's, which many clients refuse; get one issued for a server"
    usages, wanted = _extension(leaf, x509.ExtendedKeyUsage), x509.oid.ExtendedKeyUsageOID
    if usages is not None and not {wanted.SERVER_AUTH, wanted.ANY_EXTENDED_KEY_USAGE} & set(usages):
        yield "the custom certificate is not for servers; get one with the extended key usage serverAuth"


def _of_each(what: str, one: Any) -> Iterator[str]:
    """The dates and the key of the leaf, or of one above it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    now = dt.datetime.now(dt.UTC)
    if now > one.not_valid_after_utc:
        yield f"{what} ended on {one.not_valid_after_utc.date()}; get a new one"
    if now < one.not_valid_before_utc:
        yield f"{what} begins on {one.not_valid_before_utc.date()}; check the clock"
    key = _public_key(one)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _RSA_BITS:
            yield f"{what} has an RSA key of {key.key_size} bits, which is refused; use {_RSA_BITS} or more"
    elif not isinstance(key, ed25519.Ed25519PublicKey) and (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or key.curve.name not in _CURVES
        or _FIELD in one.tbs_certificate_bytes
    ):
        yield f"{what} has a kind of key that clients don't take; use RSA, or ECDSA on P-256 or P-384"


def _of_a_link(below: Any, above: Any) -> Iterator[str]:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        yield f"the given chain is out of order: {_subject(above)} did not sign the one before it; sort it"
    except UnsupportedAlgorithm:
        return  # the key's kind is told already


def _chain(text: str) -> list[Any]:
    from cryptography import x509

    return list(x509.load_pem_x509_certificates(text.encode()))


def _public_key(one: Any) -> Any:
    """None where it is of a kind that can't be read."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return one.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _subject(one: Any) -> str:
    return str(one.subject.rfc4514_string())


def _extension(one: Any, kind: Any) -> Any:
    from cryptography import x509

    try:
        return one.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names(leaf: Any) -> list[str]:
    from cryptography import x509

    names = _extension(leaf, x509.SubjectAlternativeName) or ()
    return [str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def _covers(name: str, hostname: str) -> bool:
    """RFC 6125: a star stands for one whole label, the first."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(hostname)
    except ValueError:
        pass
    name = name.lower()
    if name.startswith("*."):
        return hostname.partition(".")[2] == name[2:]
    return name == hostname
