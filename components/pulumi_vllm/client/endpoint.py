"""Where a model is served: a stack's outputs, or an address somebody gives."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pulumi_vllm.client.errors import ClientError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEY_VARIABLE = "VLLM_API_KEY"
"""Where the key comes from with an address; vLLM's own name for it."""

_PULUMI_TIMEOUT_S = 120  # a backend far away; the CLI itself takes about a second


@dataclass(frozen=True)
class Endpoint:
    """A served model. `name` is the stack's, or the address's host and port; `plan` is the stack's output."""

    url: str
    name: str
    key: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    stack: str | None = None
    model: str | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    usd_per_hour: float | None = None


def from_stack(stack: str | None) -> Endpoint:
    """The stack of the project in this folder; None takes the selected one.

    Raises:
        ClientError: no engine, no project, no such stack, or nothing is deployed.
    """
    named = ["--stack", stack] if stack else []
    outputs = _object(_pulumi("stack", "output", "--json", "--show-secrets", *named))
    name = (stack or _pulumi("stack", "--show-name")).strip().rpartition("/")[2]
    url = outputs.get("endpoint")
    if not isinstance(url, str):
        raise ClientError(
            f"stack {name}: has no output `endpoint`; nothing is deployed (run `pulumi up`), "
            'or the program exports none: pulumi.export("endpoint", server.endpoint)'
        )
    keys, certificate, price = (
        outputs.get("api_keys"),
        outputs.get("ca_certificate"),
        outputs.get("usd_per_hour"),
    )
    first = next(iter(keys.values()), None) if isinstance(keys, dict) else None
    plan, model = outputs.get("plan"), outputs.get("model")
    base = _base(url)
    return Endpoint(
        url=base,
        name=name,
        key=_sendable(base, outputs.get("api_key") or first, f"stack {name}: its output api_key"),
        tls=_tls(base, certificate, f"stack {name}: its output ca_certificate"),
        stack=name,
        model=model if isinstance(model, str) else None,
        plan=plan if isinstance(plan, dict) else {},
        usd_per_hour=float(price) if isinstance(price, int | float) else None,
    )


def from_url(url: str, ca: Path | None) -> Endpoint:
    """An address such as https://host/v1, with the key of the environment.

    Raises:
        UsageError: the address or the CA's file is not one, or the key would travel in clear.
    """
    base = _base(url)
    key = _sendable(base, os.environ.get(KEY_VARIABLE, "").strip() or None, KEY_VARIABLE)
    certificate = None
    if ca is not None and urlsplit(base).scheme != "https":
        raise UsageError(f"--ca {ca}: {base} speaks no TLS; use https, or leave --ca out")
    if ca is not None:
        try:
            certificate = ca.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ca {ca}: can't be read ({error}); name a PEM file") from None
    return Endpoint(url=base, name=urlsplit(base).netloc, key=key, tls=_tls(base, certificate, f"--ca {ca}"))


def _sendable(base: str, key: object, where: str) -> str | None:
    """The key, if it can be a header and travels to nobody else."""
    if key is None:
        return None
    if not isinstance(key, str) or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{where}: holds a character that no key has; set it again")
    to = urlsplit(base)
    if to.scheme == "http" and not _loopback(to.hostname or ""):
        raise UsageError(f"{base}: the key ({where}) would travel in clear; use https, or no key")
    return key


def _object(text: str) -> dict[str, Any]:
    """What the CLI printed as JSON; its text may be secret, so no exception holds it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError(
            "`pulumi stack output --json`: printed no JSON object; is this `pulumi` the Pulumi CLI?"
        )
    return found


def _base(url: str) -> str:
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError as error:
        raise UsageError(f"--url: is not an address ({error}); write it as https://host/v1") from None
    if where.username is not None or where.password is not None:
        raise UsageError(f"--url: holds a name or password; put the key into {KEY_VARIABLE}")
    wrong = where.scheme not in {"http", "https"} or not where.hostname or port == 0
    if wrong or where.query or where.fragment or not where.path.strip("/"):
        shown = "--url" if set("@?#") & set(url) else url  # those may hold a key
        raise UsageError(f"{shown}: is not the base address of an API; write it as https://host/v1")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--url: holds a character that no address has; write it as https://host/v1")
    return url.rstrip("/")


def _tls(url: str, certificate: object, where: str) -> ssl.SSLContext | None:
    """For https: trusts that certificate alone, be it a CA's or the gateway's own, or what this machine trusts."""
    if urlsplit(url).scheme != "https":
        return None
    if certificate is not None and not isinstance(certificate, str):
        raise UsageError(f"{where}: is no text; it should hold a certificate in PEM")
    try:
        context = ssl.create_default_context(cadata=certificate)
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(f"{where}: holds no certificate in PEM ({error})") from None
    if certificate:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as curl does, and Python from 3.13 on
    return context


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pulumi(*words: str) -> str:
    """What the CLI prints; it may be secret, so it goes into no exception."""
    try:
        done = subprocess.run(
            ["pulumi", "--non-interactive", "--color", "never", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=_PULUMI_TIMEOUT_S,
        )
    except FileNotFoundError:
        raise ClientError(
            "pulumi: not found on PATH; install the Pulumi CLI, or give --url https://HOST/v1"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClientError(f"`pulumi {words[0]}`: no answer within {_PULUMI_TIMEOUT_S} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "no words")
        raise ClientError(
            f"`pulumi {words[0]} {words[1]}`: {said.removeprefix('error:').strip()}; run this in the project's "
            "folder with its stack selected, or give --stack NAME or --url https://HOST/v1"
        )
    return done.stdout
