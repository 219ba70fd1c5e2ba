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

from .errors import ClientError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEY_VARIABLE = "VLLM_API_KEY"
"""Where the key comes from with an address; vLLM's own name for it."""

_PULUMI_TIMEOUT_S = 120  # a backend far away; the CLI itself takes about a second


@dataclass(frozen=True)
class Endpoint:
    """A served model. `name` is the stack's, or the address's host; `plan` is the stack's output of that name."""

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
    outputs: dict[str, Any] = json.loads(
        _pulumi("stack", "output", "--json", "--show-secrets", *named) or "{}"
    )
    name = (stack or _pulumi("stack", "--show-name")).strip().rpartition("/")[2]
    url = outputs.get("endpoint")
    if not url:
        raise ClientError(
            f"stack {name}: has no output `endpoint`; nothing is deployed (run `pulumi up`), "
            'or the program exports none: pulumi.export("endpoint", server.endpoint)'
        )
    key = outputs.get("api_key") or next(iter((outputs.get("api_keys") or {}).values()), None)
    certificate = outputs.get("ca_certificate")
    return Endpoint(
        url=_base(url),
        name=name,
        key=key,
        tls=_tls(url, certificate, f"stack {name}: its output ca_certificate"),
        stack=name,
        model=outputs.get("model"),
        plan=outputs.get("plan") or {},
        usd_per_hour=outputs.get("usd_per_hour"),
    )


def from_url(url: str, ca: Path | None) -> Endpoint:
    """An address such as https://host/v1, with the key of the environment.

    Raises:
        UsageError: the address or the CA's file is not one, or the key would travel in clear.
    """
    base = _base(url)
    where, key = urlsplit(base), os.environ.get(KEY_VARIABLE, "").strip() or None
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"{KEY_VARIABLE}: holds a character that no key has; export it again")
    if key and where.scheme == "http" and not _loopback(where.hostname or ""):
        raise UsageError(f"{base}: a key would travel in clear; use https, or unset {KEY_VARIABLE}")
    certificate = None
    if ca is not None:
        try:
            certificate = ca.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ca {ca}: can't be read ({error}); name a PEM file") from None
    return Endpoint(
        url=base, name=where.hostname or "unnamed", key=key, tls=_tls(base, certificate, f"--ca {ca}")
    )


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
        raise UsageError(f"{url}: is not the base address of an API; write it as https://host/v1")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--url: holds a character that no address has; write it as https://host/v1")
    return url.rstrip("/")


def _tls(url: str, certificate: str | None, where: str) -> ssl.SSLContext | None:
    """For https: trusts that certificate alone, be it a CA's or the door's own, or what this machine trusts."""
    if urlsplit(url).scheme != "https":
        return None
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
