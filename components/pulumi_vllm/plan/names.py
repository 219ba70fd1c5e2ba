"""Names of rented resources. They are deterministic, so a resource is found again, and recognisable as ours."""

import hashlib
import re

_STACK, _RESOURCE, _HASH, _CHECK = 20, 12, 7, 3
# Spheron accepts [a-z][a-z0-9-]{2,44} for every kind of resource (found in its client's code, 2026-05).
_NAME = re.compile(rf"^([a-z][a-z0-9-]*-[0-9a-f]{{{_HASH}}})([0-9a-f]{{{_CHECK}}})$")


def physical_name(stack: str, resource: str, *identity: str) -> str:
    """`<stack, cut to 20>-<resource, cut to 12>-<10 hex>`. The last three hex digits are a checksum.

    Args:
        stack: name of the stack.
        resource: name of the resource in the program.
        identity: what distinguishes this resource from others: URN, inputs that replace it, our public key.
    """
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:_HASH]
    text = f"{_clean(stack, _STACK)}-{_clean(resource, _RESOURCE)}-{digest}"
    return text + _checksum(text)


def is_ours(name: str | None) -> bool:
    """Whether the name ends with our checksum. One foreign name of this shape in 4,096 does so by chance."""
    match = _NAME.match(name or "")
    return match is not None and _checksum(match[1]) == match[2]


def _clean(text: str, length: int) -> str:
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-")
    return cleaned if cleaned[:1].isalpha() else f"s{cleaned}"[:length]


def _checksum(text: str) -> str:
    return hashlib.sha256(f"pulumi-vllm {text}".encode()).hexdigest()[:_CHECK]
