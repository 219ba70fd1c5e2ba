"""A certificate of the user's own for the door, looked at before anything is made."""

import datetime as dt
import ipaddress
from typing import Any

from .authority import RENEW_DAYS, Kept, days_left
from .resource import Call, Failure, Property, Reading, Values, has_unknown, reveal


class GivenCertificate(Kept):
    """`vllm:index:GivenCertificate`."""

    token = "vllm:index:GivenCertificate"
    description = (
        "A certificate of your own for the door: whole, of its key, in date and for the name, or refused."
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
        "expires": Property("string", "Last day (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Everything that is wrong with it, without a word of the key."""
        if has_unknown(new):
            return []
        certificate, key = str(reveal(new["certificate"])), str(reveal(new["privateKey"]))
        return [Failure("", sentence) for sentence in mistakes(certificate, key, str(new["hostname"]))]

    async def preview(self, call: Call, new: Values) -> Values:
        """When it ends."""
        return {} if has_unknown(new.get("certificate")) else {"expires": self._expires(new)}

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Put together what the door reads."""
        parts = (str(reveal(new[name])).strip() for name in ("certificate", "privateKey"))
        return f"given-{new['hostname']}", {"pem": "\n".join((*parts, "")), "expires": self._expires(new)}

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """The same."""
        return (await self.create(call, new))[1]

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Only you can get another one: warn in time."""
        left = days_left(state)
        if left < RENEW_DAYS:
            await call.warn(
                f"the door's certificate ends on {state['expires']} ({left} days); give a new one and run `pulumi up`"
            )
        return Reading({name: state.get(name) for name in self.outputs}, inputs)

    def _expires(self, new: Values) -> str:
        return str(_chain(str(reveal(new["certificate"])))[0].not_valid_after_utc.date())


def mistakes(certificate: str, private_key: str, hostname: str) -> list[str]:
    """What is wrong, one sentence each; none holds anything of the key."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        leaf, *others = _chain(certificate)
    except ValueError:
        return ["the given certificate can't be read; give PEM text, the leaf first and then its chain"]
    found = []
    try:
        key: Any = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError):
        found.append("the given certificate's key can't be read; give it as PEM without a passphrase")
    else:
        if key.public_key() != leaf.public_key():
            found.append(
                "the given key is not the certificate's; give the pair, the leaf's certificate first"
            )
    now = dt.datetime.now(dt.UTC)
    if now > leaf.not_valid_after_utc:
        found.append(f"the given certificate ended on {leaf.not_valid_after_utc.date()}; get a new one")
    if now < leaf.not_valid_before_utc:
        found.append(f"the given certificate begins on {leaf.not_valid_before_utc.date()}; check the clock")
    names = _names(leaf)
    if not any(_covers(name, hostname) for name in names):
        said = ", ".join(names) or "no name at all"
        found.append(f"the given certificate is for {said}, not for {hostname}; get one for access.hostname")
    for below, above in zip([leaf, *others], others, strict=False):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            who = above.subject.rfc4514_string()
            found.append(f"the given chain is out of order: {who} did not sign the one before it; sort it")
    return found


def _chain(text: str) -> list[Any]:
    from cryptography import x509  # noqa: PLC0415

    return list(x509.load_pem_x509_certificates(text.encode()))


def _names(leaf: Any) -> list[str]:
    from cryptography import x509  # noqa: PLC0415

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
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
