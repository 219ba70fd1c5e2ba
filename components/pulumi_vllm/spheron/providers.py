"""How volumes appear on the hosts of each company behind the API: one table, and no company name elsewhere."""

from __future__ import annotations

_DEFAULT = "block"

# block: a device. virtiofs: a share with a tag; attaching it restarts the instance. nfs: a share with a path.
# Sources: the vendor's volume pages and public client code, 2026-05 to 2026-10. Nobody has published a mount
# command for data-crunch or voltage-park; their pages say NFS. data-crunch is handled as a block device, which
# was tested on the local cloud only.
_MOUNT_KINDS = {
    "spheron-es": "virtiofs",
    "data-crunch": "block",
    "voltage-park": "nfs",
    "massed-compute": "block",
    "spheron-ai": "block",
    "sesterce": "block",
}
# New names of the same company.
_ALIASES = {"verda": "data-crunch"}


def mount_kind(provider: str | None) -> str:
    """Return how a volume of this provider appears on the host: block, virtiofs or nfs."""
    return _BY_KEY.get(_key(provider or ""), _DEFAULT)


def _key(name: str) -> str:
    """The API has changed the spelling of its providers more than once."""
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    return _ALIASES.get(plain, plain).replace("-", "")


_BY_KEY = {_key(name): kind for name, kind in _MOUNT_KINDS.items()}
