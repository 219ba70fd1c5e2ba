"""Names of rented resources. They are deterministic, so a resource is found again, and recognisable as ours."""

import hashlib
import re

_STACK, _RESOURCE, _OWNER, _HASH, _CHECK = 16, 12, 4, 7, 3
# Spheron accepts [a-z][a-z0-9-]{2,44} for every kind of resource (found in its client's code, 2026-05).
# The owner's digits are missing in names of earlier versions.
_NAME = re.compile(rf"^([a-z][a-z0-9-]*-(?:[0-9a-f]{{{_OWNER}}})?[0-9a-f]{{{_HASH}}})([0-9a-f]{{{_CHECK}}})$")


def physical_name(stack: str, project: str, resource: str, *identity: str) -> str:
    """`<stack, cut to 16>-<resource, cut to 12>-<14 hex>`. The last three hex digits are a checksum.

    The first four hex digits stand for stack and project, so that a name tells to which stack a resource belongs.

    Args:
        stack: name of the stack.
        project: name of the project.
        resource: name of the resource in the program.
        identity: what distinguishes this resource from others: URN, inputs that replace it, our public key.
    """
    digest = hashlib.sha256("\0".join((stack, project, *identity)).encode()).hexdigest()[:_HASH]
    text = f"{_clean(stack, _STACK)}-{_clean(resource, _RESOURCE)}-{_owner(stack, project)}{digest}"
    return text + _checksum(text)


def is_ours(name: str | None) -> bool:
    """Whether the name ends with our checksum. One foreign name of this shape in 4,096 does so by chance."""
    match = _NAME.match(name or "")
    return match is not None and _checksum(match[1]) == match[2]


def is_of_stack(name: str | None, stack: str, project: str) -> bool:
    """Whether a resource of this stack was created under the name. A stack that was renamed since has other names."""
    hexadecimal = (name or "")[-(_OWNER + _HASH + _CHECK) :]
    starts_with = f"{_clean(stack, _STACK)}-"
    return (
        is_ours(name) and str(name).startswith(starts_with) and hexadecimal[:_OWNER] == _owner(stack, project)
    )


def is_of_resource(name: str | None, resource: str) -> bool:
    """Whether a resource of this name in some program was created under the name."""
    text = (name or "").rpartition("-")[0]
    return is_ours(name) and text.endswith(f"-{_clean(resource, _RESOURCE)}")


def _owner(stack: str, project: str) -> str:
    return hashlib.sha256(f"{stack}\0{project}".encode()).hexdigest()[:_OWNER]


def _clean(text: str, length: int) -> str:
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-")
    return cleaned if cleaned[:1].isalpha() else f"s{cleaned}"[:length]


def _checksum(text: str) -> str:
    return hashlib.sha256(f"pulumi-vllm {text}".encode()).hexdigest()[:_CHECK]
