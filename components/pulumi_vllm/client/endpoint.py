"""Where a model is served: from a stack's outputs or from a URL."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pulumi_vllm.client.errors import ClientError, UsageError
from pulumi_vllm.client.pulumi_cli import CliMissingError, PulumiCliError, pulumi_output

if TYPE_CHECKING:
    from pathlib import Path

KEY_VARIABLE = "VLLM_API_KEY"
"""The environment variable that holds the key for --url. vLLM uses the same name."""

_PULUMI_TIMEOUT_S = 120  # for a distant backend; the CLI itself takes about a second


@dataclass(frozen=True)
class Endpoint:
    """A served model. `name` is the stack's, or the URL's host and port. `plan` is the stack's output."""

    url: str
    name: str
    key: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    stack: str | None = None
    model: str | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    usd_per_hour: float | None = None


def from_stack(stack: str | None) -> Endpoint:
    """Return the endpoint of a stack of this folder's project; None takes the selected stack.

    Raises:
        ClientError: no Pulumi CLI, no project, no such stack, or the stack has no endpoint.
    """
    named = ["--stack", stack] if stack else []
    outputs = _json_object(_output("stack", "output", "--json", "--show-secrets", *named))
    name = (stack or _output("stack", "--show-name")).strip().rpartition("/")[2]
    url = outputs.get("endpoint")
    if not isinstance(url, str):
        raise ClientError(
            f"stack {name}: has no output `endpoint`; nothing is deployed (run `pulumi up`), "
            'or the program does not export it: pulumi.export("endpoint", server.endpoint)'
        )
    keys, certificate, price = (
        outputs.get("api_keys"),
        outputs.get("ca_certificate"),
        outputs.get("usd_per_hour"),
    )
    first = next(iter(keys.values()), None) if isinstance(keys, dict) else None
    model = outputs.get("model")
    base = _base_url(url)
    return Endpoint(
        url=base,
        name=name,
        key=_checked_key(base, outputs.get("api_key") or first, f"stack {name}: its output api_key"),
        tls=_tls_context(base, certificate, f"stack {name}: its output ca_certificate"),
        stack=name,
        model=model if isinstance(model, str) else None,
        plan=_plan(outputs),
        usd_per_hour=float(price) if isinstance(price, int | float) else None,
    )


def _plan(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return what the outputs of a stack say about its plan, with the flags as a list of words."""
    plan, flags, gateway = outputs.get("plan"), outputs.get("flags"), outputs.get("gateway")
    return {
        **(plan if isinstance(plan, dict) else {}),
        **({"flags": shlex.split(flags)} if isinstance(flags, str) else {}),
        **({"gateway": gateway} if isinstance(gateway, dict) else {}),
    }


def from_url(url: str, ca: Path | None) -> Endpoint:
    """Return the endpoint at a URL such as https://host/v1, with the key from the environment.

    Raises:
        UsageError: the URL or the CA file is not valid, or the key would be sent unencrypted.
    """
    base = _base_url(url)
    key = _checked_key(base, os.environ.get(KEY_VARIABLE, "").strip() or None, KEY_VARIABLE)
    certificate = None
    if ca is not None and urlsplit(base).scheme != "https":
        raise UsageError(f"--ca {ca}: {base} does not use TLS; use https, or omit --ca")
    if ca is not None:
        try:
            certificate = ca.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ca {ca}: cannot be read ({error}); give a PEM file") from None
    return Endpoint(
        url=base, name=urlsplit(base).netloc, key=key, tls=_tls_context(base, certificate, f"--ca {ca}")
    )


def _checked_key(base: str, key: object, where: str) -> str | None:
    """Return the key if it is valid in a header and would not be sent unencrypted."""
    if key is None:
        return None
    if not isinstance(key, str) or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{where}: contains a character that is not allowed in a key; set it again")
    to = urlsplit(base)
    if to.scheme == "http" and not _is_loopback(to.hostname or ""):
        raise UsageError(f"{base}: the key ({where}) would be sent unencrypted; use https, or no key")
    return key


def _json_object(text: str) -> dict[str, Any]:
    """Parse JSON that the CLI printed. It may be secret, so no exception contains it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError(
            "`pulumi stack output --json`: did not print a JSON object; is this `pulumi` the Pulumi CLI?"
        )
    return found


def _base_url(url: str) -> str:
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError as error:
        raise UsageError(f"--url: is not a URL ({error}); write it as https://host/v1") from None
    if where.username is not None or where.password is not None:
        raise UsageError(f"--url: contains a user name or password; put the key into {KEY_VARIABLE}")
    wrong = where.scheme not in {"http", "https"} or not where.hostname or port == 0
    if wrong or where.query or where.fragment or not where.path.strip("/"):
        shown = "--url" if set("@?#") & set(url) else url  # these URLs may contain a key
        raise UsageError(f"{shown}: is not the base URL of an API; write it as https://host/v1")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            "--url: contains a character that is not allowed in a URL; write it as https://host/v1"
        )
    return url.rstrip("/")


def _tls_context(url: str, certificate: object, where: str) -> ssl.SSLContext | None:
    """For https, return a context that trusts only this certificate, or else what this machine trusts.

    The certificate is a CA's or the gateway's own.
    """
    if urlsplit(url).scheme != "https":
        return None
    if certificate is not None and not isinstance(certificate, str):
        raise UsageError(f"{where}: is not text; it should be a certificate in PEM format")
    try:
        context = ssl.create_default_context(cadata=certificate)
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(f"{where}: is not a certificate in PEM format ({error})") from None
    if certificate:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as curl does, and Python since 3.13
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _output(*words: str) -> str:
    try:
        return pulumi_output(*words, timeout_s=_PULUMI_TIMEOUT_S)
    except CliMissingError as error:
        raise ClientError(f"{error}, or give --url https://HOST/v1") from None
    except PulumiCliError as error:
        # Some messages say already what to do.
        remedy = "" if "; " in str(error) else "; run this in the project's folder with its stack selected"
        raise ClientError(f"{error}{remedy}, or give --stack NAME or --url https://HOST/v1") from None
