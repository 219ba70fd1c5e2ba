"""HTTP to a gateway: JSON answers, server-sent events, and errors that say what to do about them."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import ssl
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pulumi_vllm.client.endpoint import KEY_VARIABLE
from pulumi_vllm.client.errors import AnswerInterrupted, ClientError, RequestRefused, printable

try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError as error:
    raise ClientError(
        f"{error.name}: not installed; smoke and bench need it. Run: pip install 'pulumi-vllm[bench]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pulumi_vllm.client.endpoint import Endpoint

CONNECT_TIMEOUT_S = 10.0
DEFAULT_READ_TIMEOUT_S = 3600.0  # where no plan says after how many seconds the gateway itself gives up
_GRACE_S = 60.0  # the gateway's own 504 comes first
_LARGE_BODY = 64 * 1024
"""Bytes above which a request asks first (Expect: 100-continue). Smaller bodies fit into the socket's buffers."""
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404
_RATE_LIMIT = "x-ratelimit-"
_REMEDIES = {
    413: "the request is larger than the gateway allows (413); raise server.gateway.max_body_mib in the stack file",
    429: "a limit of this key is reached (429: {message}); raise it under server.access.keys or server.gateway in the "
    "stack file, and run `pulumi up`",
    504: "the engine did not answer in time (504); raise server.gateway.answer_timeout_s in the stack file",
    503: "the engine does not serve right now (503: {message}); it is starting, draining, busy or has stopped",
}


class _Response(aiohttp.ClientResponse):
    """An answer that ends its connection at once when it is not read to its end."""

    def close(self) -> None:
        """Abort the connection, if this answer still holds it.

        aiohttp would say goodbye over TLS, and nobody would wait for it: its socket would outlive the session.
        """
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.abort()
        super().close()


class GatewaySession:
    """Connections to one endpoint. They are opened on demand, kept alive, and used by one request at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepare a session; `async with` opens it."""
        self.endpoint = endpoint
        limit_s = (endpoint.plan.get("gateway") or {}).get("answer_timeout_s")
        self.read_timeout_s = DEFAULT_READ_TIMEOUT_S if limit_s is None else float(limit_s) + _GRACE_S
        self.rate_limits: dict[str, int] = {}
        """What the last answer reported about the key's limits, such as `remaining-tokens`."""
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the session. Connections follow."""
        key = self.endpoint.key
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.endpoint.tls or True),
            headers={"User-Agent": "pulumi_vllm"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            skip_auto_headers=("Accept-Encoding",),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=CONNECT_TIMEOUT_S, sock_read=self.read_timeout_s
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self._http.close()

    async def connect(self, number: int) -> None:
        """Open so many connections, so that the first requests do not wait for TLS handshakes.

        Raises:
            ClientError: nothing answers there, or its certificate is not trusted.
        """
        connector, timeout = self._http.connector, self._http.timeout
        assert connector is not None  # noqa: S101 - the session is open
        request = aiohttp.ClientRequest("GET", URL(self.endpoint.url), session=self._http)
        with self._errors_explained():
            opened = await asyncio.gather(
                *(connector.connect(request, [], timeout) for _ in range(number)), return_exceptions=True
            )
            failures = [one for one in opened if isinstance(one, BaseException)]
            for one in opened:
                if isinstance(one, aiohttp.connector.Connection):
                    one.release()
            if failures:
                raise failures[0]

    async def json(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Return the whole answer; `headers` are further ones of this request.

        Raises:
            RequestRefused: the status is not 200.
            ClientError: there is no answer, or it is not JSON.
        """
        async with self._request(method, path, encode(body) if body else None, headers or {}) as response:
            with self._errors_explained(path):
                text = await response.read()
        try:
            return json.loads(text)
        except ValueError:
            message = printable(text.decode(errors="replace"))
            raise ClientError(
                f"{self.endpoint.url}{path}: the answer is not JSON ({message}); is this the API's address?"
            ) from None

    async def events(self, path: str, body: bytes) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a streamed answer as they arrive.

        Raises:
            RequestRefused: the status is not 200, or an event says that the engine gave up.
            AnswerInterrupted: the stream ended before its [DONE].
        """
        rest, done = b"", False
        async with self._request("POST", path, body, {}) as response:
            with self._errors_explained(path):
                # An event may be cut anywhere, and aiohttp's readline() refuses lines above 128 KiB.
                async for piece in response.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        if not line.startswith(b"data:"):
                            continue
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            done = True
                            continue
                        event = self._event(data, path)
                        if "error" in event:
                            raise self._refused(500, data, path)
                        yield event
        if not done:
            raise AnswerInterrupted(f"{self.endpoint.url}{path}: the stream ended before its [DONE]")

    def _event(self, data: bytes, path: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            message = printable(data.decode(errors="replace"))
            raise AnswerInterrupted(
                f"{self.endpoint.url}{path}: an event of the stream is not a JSON object ({message})"
            )
        return event

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with self._errors_explained(path):
            async with asyncio.timeout(self.read_timeout_s):  # aiohttp's read timeout begins after sending
                response = await self._http.request(
                    method,
                    self.endpoint.url + path,
                    data=io.BytesIO(body) if body else None,  # aiohttp warns of more than 1 MiB as bytes
                    headers=headers | ({"Content-Type": "application/json"} if body else {}),
                    allow_redirects=False,
                    # Without it aiohttp loses the gateway's refusal of a body while it still sends that body.
                    expect100=body is not None and len(body) > _LARGE_BODY,
                )
                self.rate_limits = {
                    name.lower().removeprefix(_RATE_LIMIT): int(value)
                    for name, value in response.headers.items()
                    if name.lower().startswith(_RATE_LIMIT) and value.isdecimal()
                }
                text = b"" if response.status == _OK else await response.read()
        try:
            if response.status != _OK:
                raise self._refused(response.status, text, path)
            yield response
        finally:
            response.close()  # an answer that was read to its end has given its connection back already

    def _refused(self, status: int, text: bytes, path: str) -> RequestRefused:
        try:
            answer = json.loads(text)
            error = answer.get("error", answer.get("detail", answer))
            message = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            message = text.decode(errors="replace")
        message = printable(message)
        return RequestRefused(f"{self.endpoint.url}{path}: {self._remedy(status, message)}", status, message)

    def _remedy(self, status: int, message: str) -> str:
        stack, key = self.endpoint.stack, self.endpoint.key
        if status == _UNAUTHORIZED and stack:
            return f"the key of stack {stack} was refused (401); the gateway has other keys, run `pulumi up`"
        if status == _UNAUTHORIZED:
            what = f"the key in {KEY_VARIABLE} was refused" if key else "a key is needed"
            return f"{what} (401); export the right one as {KEY_VARIABLE}"
        if status == _NOT_FOUND and "model" in message.lower():
            return f"the model is not served here (404: {message})"
        template = _REMEDIES.get(status, "refused with status {status}: {message}")
        return template.format(status=status, message=message)

    @contextmanager
    def _errors_explained(self, path: str = "") -> Iterator[None]:
        """Turn aiohttp's errors into messages for a person; after a connection is made, into AnswerInterrupted."""
        url = f"{self.endpoint.url}{path}"
        try:
            yield
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise self._not_connected(error, url) from None
        except TimeoutError:
            raise AnswerInterrupted(f"{url}: silent for {self.read_timeout_s:.0f} s") from None
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            hint = "" if self.endpoint.tls else "; is https meant?"
            raise AnswerInterrupted(
                f"{url}: the connection ended before the end of an answer{hint}"
            ) from None
        except (aiohttp.ClientResponseError, ValueError):
            raise AnswerInterrupted(
                f"{url}: the answer is not valid HTTP/1.1; is this the API's address?"
            ) from None
        except OSError as error:
            raise AnswerInterrupted(f"{url}: the connection broke ({error.strerror or error})") from None

    def _not_connected(self, error: Exception, url: str) -> ClientError:
        cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = (
                "the stack's state is older than the gateway: run `pulumi refresh`"
                if self.endpoint.stack
                else "name the CA that signed it with --ca FILE"
            )
            return ClientError(f"{url}: the certificate is not trusted ({cause.verify_message}); {remedy}")
        if isinstance(cause, ssl.SSLError):
            return ClientError(f"{url}: the TLS handshake failed ({cause.reason}); is http meant?")
        if isinstance(error, TimeoutError):
            return ClientError(
                f"{url}: no connection within {CONNECT_TIMEOUT_S:.0f} s; "
                "is this machine in server.access.allow, and is the stack up?"
            )
        reason = getattr(cause, "strerror", None) or cause
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return ClientError(f"{url}: {urlsplit(url).hostname} has no address ({reason})")
        if isinstance(cause, OSError) and cause.errno in {errno.EMFILE, errno.ENFILE}:
            remedy = "raise `ulimit -n`, or ask for fewer streams"
            return ClientError(f"{url}: this machine cannot open more connections ({reason}); {remedy}")
        return ClientError(f"{url}: nothing answers ({reason}); is the stack up?")


def encode(body: dict[str, Any]) -> bytes:
    """Return the JSON as it is sent."""
    return json.dumps(body).encode()
