"""Try the endpoint from where Pulumi runs, as a client does: TLS with the declared certificate, then GET /healthz.

The readiness check on the host can't find a port that the cloud or a router closes.
"""

import asyncio
import os
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.plan.address_ranges import admits
from pulumi_vllm.provider.lifecycle.access import ACCESS, Access
from pulumi_vllm.provider.lifecycle.host_connection import Connection, connect_host
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Property, Values

ANSWERS: Final = "yes"
ENDPOINT_INPUTS: Final = {
    "endpoint": Property("string", "URL of the API, as clients write it."),
    "caCertificate": Property("string", "CA certificate with which clients verify the gateway, PEM."),
    "access": ACCESS,
    "answers": Property(
        "string",
        "Whether the endpoint answered the last refresh, tried from where Pulumi runs if server.access.allow admits "
        f"that address (default: {ANSWERS}); otherwise the reason.",
    ),
}

_WITHIN_S: Final = 8.0
_ATTEMPTS, _PAUSE_S = 3, 2.0
_OK: Final = "200"


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one trial of the endpoint."""

    url: str
    client: str
    """The address from which the host sees this computer."""
    not_tried: str | None = None
    """Why the endpoint could not be tried."""
    problem: str | None = None
    """Why it does not answer."""


async def prove_endpoint(call: Call, values: Values) -> str:
    """Try the endpoint after the readiness check has passed. Returns what was found, for the evidence.

    Raises:
        UserError: the endpoint does not answer, although `allow` admits this computer.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        trial = await try_endpoint(call, values)
        if trial is None or trial.not_tried or not trial.problem:
            break
        if attempt < _ATTEMPTS:
            await call.sleep(_PAUSE_S)
    if trial is None:
        return "not tried: the program does not say which endpoint this is"
    if trial.problem:
        raise UserError(
            f"{call.name}: {trial.url} does not answer this computer ({trial.client}), which server.access.allow "
            f"admits: {trial.problem}; the readiness check on the host has passed, so look at what is between: a "
            "firewall of the cloud or of this network that closes port 443; then run `pulumi up` again"
        )
    if trial.not_tried:
        await call.warn(f"{call.name}: whether {trial.url} answers was not tried: {trial.not_tried}")
        return f"not tried: {trial.not_tried}"
    await _warn_of_name(call, values, trial.url)
    return f"answered to {trial.client}"


async def observe_endpoint(call: Call, values: Values) -> str:
    """Try the endpoint during a refresh. Returns the observed value of the input `answers`."""
    try:
        trial = await try_endpoint(call, values)
    except HostError:  # reported by the resource, which can't observe the host either
        return ANSWERS
    if trial is None:
        return ANSWERS
    if trial.not_tried:
        await call.info(f"{call.name}: whether {trial.url} answers was not tried: {trial.not_tried}")
        return ANSWERS
    if trial.problem:
        await call.warn(
            f"{call.name}: {trial.url} does not answer this computer ({trial.client}): {trial.problem}"
        )
        return f"no: {trial.problem}"
    return ANSWERS


async def try_endpoint(call: Call, values: Values) -> Trial | None:
    """Try the endpoint once. None if its address is not known.

    Raises:
        HostError: the host can't be reached, so it can't say from which address it sees this computer.
    """
    url, authority = reveal(values.get("endpoint")), reveal(values.get("caCertificate"))
    access = Access.from_values(values)
    if not url or has_unknown(url) or has_unknown(authority) or access is None:
        return None
    host = await connect_host(call, values)
    client = await host.client_address()
    if client and not admits(access.allow, client):
        reason = f"the host sees this computer as {client}, which server.access.allow does not admit"
        return Trial(url, client, not_tried=reason)
    problem = await _request(Connection.from_values(call, values).host, url, authority)
    if problem and _uses_proxy(url):
        reason = (
            f"a direct connection failed ({problem}), and HTTPS_PROXY says that this computer needs a proxy"
        )
        return Trial(url, client, not_tried=reason)
    if problem and not client:
        reason = (
            f"it did not answer ({problem}), and the host does not say whether it should admit this computer"
        )
        return Trial(url, client, not_tried=reason)
    return Trial(url, client, problem=problem)


def _uses_proxy(url: str) -> bool:
    """Whether this computer reaches the URL through a proxy only."""
    import urllib.request  # only a failed trial pays for it

    known = urllib.request.getproxies()
    return "https" in known and not urllib.request.proxy_bypass(urlsplit(url).hostname or "")


async def _request(address: str, url: str, authority: str | None) -> str | None:
    """Return why the gateway at an address does not answer as the URL's host, or None when it does."""
    try:
        context = ssl.create_default_context(cadata=authority or None)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as `smoke` and curl do
        async with asyncio.timeout(_WITHIN_S):
            status = await _status(address, url, context)
    except TimeoutError:
        return f"no answer within {_WITHIN_S:.0f} s"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not the declared one ({error.verify_message})"
    except ssl.SSLError as error:
        return f"TLS failed ({error.reason or error})"
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    if not status:
        return "it closed the connection without an answer"
    return None if status.startswith(_OK) else f"/healthz answered {status}"


async def _status(address: str, url: str, context: ssl.SSLContext) -> str:
    """Return the status of GET /healthz, such as "200 OK"."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address, parts.port or 443, ssl=context, server_hostname=parts.hostname
    )
    try:
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).decode(errors="replace").partition(" ")[2].strip()
    finally:
        writer.transport.abort()


async def _warn_of_name(call: Call, values: Values, url: str) -> None:
    """Warn when the name in the URL does not lead to the host: that is the user's own DNS record."""
    name, address = urlsplit(url).hostname or "", Connection.from_values(call, values).host
    if name == address or ":" in name:
        return
    try:
        async with asyncio.timeout(_WITHIN_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, 443)
        leads_to = sorted({str(entry[4][0]) for entry in found})
    except (OSError, TimeoutError):
        leads_to = []
    if address not in leads_to:
        where = f"leads to {', '.join(leads_to)}" if leads_to else "is not known to DNS here"
        await call.warn(
            f"{call.name}: the gateway at {address} answers as {name}, but that name {where}; clients need a DNS "
            f"record of {name} with {address}"
        )
