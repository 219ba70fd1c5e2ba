"""A custom certificate for a server's gateway, and the validation of its arguments."""

from collections.abc import Mapping
from typing import Any

import pulumi

from pulumi_vllm.component import generated as resources


def errors(args: Mapping[str, Any]) -> list[str]:
    """Require all of certificate, key and host name, or none of them."""
    given = [name for name in ("tls_certificate", "tls_private_key") if args.get(name) is not None]
    if not given:
        return []
    server = args.get("server")
    access = server.get("access") if isinstance(server, Mapping) else None
    found = []
    if len(given) == 1:
        found.append(f"{given[0]}: is set alone; set both tls_certificate and tls_private_key")
    certificate = args.get("tls_certificate")
    if isinstance(certificate, str) and "PRIVATE KEY" in certificate:
        # Refused before a resource has it, so that no engine prints it as an input.
        found.append(
            "tls_certificate: contains a private key, but a certificate is not a secret; "
            "pass the key as tls_private_key only, and use a new pair if this one was stored unencrypted"
        )
    if isinstance(access, Mapping) and not access.get("hostname"):
        found.append("server.access.hostname: missing; a custom certificate needs the name that clients use")
    return found


def declare(
    name: str, args: Mapping[str, Any], hostname: str | None, opts: pulumi.ResourceOptions
) -> resources.CustomCertificate | None:
    """Declare the certificate, if there is one. The provider checks it before anything else is created."""
    if args.get("tls_certificate") is None or hostname is None:
        return None
    return resources.CustomCertificate(
        f"{name}-custom-certificate",
        certificate=args["tls_certificate"],
        private_key=args["tls_private_key"],
        hostname=hostname,
        opts=opts,
    )
