"""What differs between the companies behind the API, as data: one table, and no names elsewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """How volumes appear in a machine of one company, and who may log in."""

    mount_kind: str
    """block: a disk; virtiofs: a share by tag, attaching restarts the machine; nfs: a share by path."""
    user: str | None = None
    """Login user, where one was seen."""


_UNKNOWN = Provider("block")

# Sources: the vendor's volume pages and public client code, 2026-05 to 2026-10. Nobody has published a mount
# command of data-crunch or voltage-park; their pages say NFS. data-crunch is driven as a disk, which was only
# tried on the local cloud.
_PROVIDERS = {
    "spheron-es": Provider("virtiofs", "ubuntu"),
    "data-crunch": Provider("block", "root"),
    "voltage-park": Provider("nfs"),
    "massed-compute": Provider("block", "ubuntu"),
    "spheron-ai": Provider("block"),
    "sesterce": Provider("block"),
}
# Older spellings and new names of the same company.
_ALIASES = {"verda": "data-crunch"}


def same_provider(one: str | None, other: str | None) -> bool:
    """Whether two spellings name one company; the API changed its own more than once."""
    return one is not None and other is not None and _key(one) == _key(other)


def mount_kind(provider: str | None) -> str:
    """How a volume of this provider appears in the guest: block, virtiofs or nfs."""
    return _find(provider).mount_kind


def unmountable(provider: str, region: str) -> str:
    """Why nothing is rented where volumes can't be mounted."""
    return f"nobody has published how {provider} mounts its NFS volumes in {region}; take another region"


def login_user(provider: str | None) -> str | None:
    """The login user to try first; None where nobody has said."""
    return _find(provider).user


def _find(provider: str | None) -> Provider:
    return _TABLE.get(_key(provider or ""), _UNKNOWN)


def _key(name: str) -> str:
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return _ALIASES.get(plain, plain).replace("-", "")


_TABLE = {_key(name): provider for name, provider in _PROVIDERS.items()}
