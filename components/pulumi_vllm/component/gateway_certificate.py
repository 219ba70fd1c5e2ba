"""A certificate of the user's own for a server's gateway: complete, or a sentence says what is missing."""

from collections.abc import Mapping
from typing import Any

import pulumi

from pulumi_vllm.component import generated as resources


def mistakes(args: Mapping[str, Any]) -> list[str]:
    """It is three things (certificate, key, the name that clients use), or none."""
    given = [name for name in ("tls_certificate", "tls_private_key") if args.get(name) is not None]
    if not given:
        return []
    server = args.get("server")
    access = server.get("access") if isinstance(server, Mapping) else None
    found = []
    if len(given) == 1:
        found.append(f"{given[0]}: is given alone; tls_certificate and tls_private_key belong together")
    certificate = args.get("tls_certificate")
    if isinstance(certificate, str) and "PRIVATE KEY" in certificate:
        # Told here, before a resource has it: whatever an engine prints of an input, it is not this.
        found.append(
            "tls_certificate: holds a private key, and a certificate is no secret; "
            "give the key as tls_private_key alone, and a new pair if this one was stored in clear"
        )
    if isinstance(access, Mapping) and not access.get("hostname"):
        found.append(
            "server.access.hostname: missing; a certificate of your own needs the name that clients use"
        )
    return found


def given(
    name: str, args: Mapping[str, Any], hostname: str | None, opts: pulumi.ResourceOptions
) -> resources.CustomCertificate | None:
    """Declare it, where one is given: the provider looks at it before anything else is made."""
    if args.get("tls_certificate") is None or hostname is None:
        return None
    return resources.CustomCertificate(
        f"{name}-given-certificate",
        certificate=args["tls_certificate"],
        private_key=args["tls_private_key"],
        hostname=hostname,
        opts=opts,
    )
