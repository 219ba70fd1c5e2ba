"""HTTP transport for the rental API: headers, time limits, retries where they are safe, and errors."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pulumi_vllm import __version__
from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron.api_address import FROM_ENVIRONMENT, Remedies, checked_key, checked_url
from pulumi_vllm.spheron.error_responses import error_from_response, redact
from pulumi_vllm.spheron.errors import CloudError, RateLimitedError
from pulumi_vllm.spheron.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

AGENT = f"pulumi-vllm/{__version__}"
_TIMEOUTS_S = {"GET": 30.0, "DELETE": 60.0, "POST": 120.0, "PATCH": 60.0}
_CONNECT_TIMEOUT_S = 10.0
_ATTEMPTS = 5
_LONGEST_WAIT_S = 30.0
# A longer pause that the server asks for is split: its clock may run faster than ours.
_LONGEST_PAUSE_S = 5.0
_PER_PAGE = 100
_MAX_PAGES = 50


class _BearerToken(requests.auth.AuthBase):
    """Sets the Authorization header after requests has looked for a .netrc, and never shows the key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def __repr__(self) -> str:
        return "_BearerToken(***)"


class Transport:
    """Calls to one base URL with one API key. Safe to use from several threads."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        timeouts_s: Mapping[str, float] | None = None,
        remedies: Remedies = FROM_ENVIRONMENT,
    ) -> None:
        self._remedies = remedies
        self._url, self._loopback = checked_url(url, remedies)
        self._secret = checked_key(api_key, remedies)
        self._auth = _BearerToken(self._secret)
        self._limiter = RateLimiter(clock=clock)
        self.clock = clock
        self.sleep = sleep
        self._timeouts_s = {**_TIMEOUTS_S, **(timeouts_s or {})}
        self._of_thread = threading.local()
        self._sessions: list[requests.Session] = []
        self.server_time: float | None = None
        """Seconds since 1970 by the server's clock, as of its last answer; None before one with a date."""

    def __repr__(self) -> str:
        return f"Transport({self._url!r})"

    @property
    def url(self) -> str:
        """The base URL, without credentials."""
        return self._url

    def close(self) -> None:
        """Close the connections of all threads."""
        for session in self._sessions:
            session.close()

    def get(self, path: str, *, action: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET. Repeated after a lost connection, a 5xx, an unreadable answer, and a 429."""
        return self._call("GET", path, action=action, params=params, repeat=True)

    def get_pages(
        self, path: str, *wrappers: str, action: str, params: Mapping[str, Any] | None = None
    ) -> list[fields.Record]:
        """GET all pages of a list and return its objects. `wrappers` are fields that may hold the list."""
        found: list[fields.Record] = []
        for page in range(1, _MAX_PAGES + 1):
            query = {**(params or {}), "page": page, "limit": _PER_PAGE}
            answer = self.get(path, action=action, params=query)
            found += fields.unwrap_list(answer, *wrappers, action=action)
            pages = fields.integer(answer, "totalPages") if isinstance(answer, dict) else None
            if not pages or page >= pages:
                return found
        raise CloudError(f"{action}: the cloud lists more than {_MAX_PAGES} pages, which no team has")

    def delete(self, path: str, *, action: str) -> Any:
        """DELETE. Repeated like a GET: the second one finds nothing to delete."""
        return self._call("DELETE", path, action=action, repeat=True)

    def post(self, path: str, body: Mapping[str, Any], *, action: str) -> Any:
        """POST. Repeated only after a 429, because any other failed call may have taken effect."""
        return self._call("POST", path, action=action, body=body)

    def patch(self, path: str, body: Mapping[str, Any], *, action: str) -> Any:
        """PATCH. Repeated only after a 429."""
        return self._call("PATCH", path, action=action, body=body)

    # -- one call, several attempts ---------------------------------------------------------------------
    def _call(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        repeat: bool = False,
    ) -> Any:
        started = self.clock()
        attempt, limited = 0, False
        while True:
            self.sleep(self._limiter.take())
            try:
                answer = self._attempt(method, path, action=action, params=params, body=body)
            except RateLimitedError as error:
                limited = True
                self._limiter.server_refused()
                pause_s = min(error.retry_after_s or _LONGEST_PAUSE_S, _LONGEST_PAUSE_S)
                pause_s += random.uniform(0, 0.2 * pause_s)  # noqa: S311 (jitter)
                if self.clock() - started + pause_s > _LONGEST_WAIT_S:
                    raise
            except CloudError as error:
                attempt += 1
                if not (repeat and _is_transient(error)) or attempt >= _ATTEMPTS:
                    raise
                pause_s = 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
                if attempt > 1 and self.clock() - started + pause_s > _LONGEST_WAIT_S:
                    raise
            else:
                if limited:
                    self._limiter.server_accepted()
                return answer
            self.sleep(pause_s)

    def _attempt(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
    ) -> Any:
        try:
            with self._session(fresh=method in {"POST", "PATCH"}) as session:
                response = session.request(
                    method,
                    self._url + path,
                    params=dict(params or {}),
                    json=body,
                    auth=self._auth,
                    timeout=(_CONNECT_TIMEOUT_S, self._timeouts_s[method]),
                    allow_redirects=False,
                )
        except requests.Timeout as error:
            reason = f"no answer within {self._timeouts_s[method]:.0f} s"
            raise self._connection_error(action, error, reason) from None
        except requests.RequestException as error:
            raise self._connection_error(action, error, "the connection was lost") from None
        return self._parse(response, action)

    @contextlib.contextmanager
    def _session(self, *, fresh: bool) -> Iterator[requests.Session]:
        """Yield this thread's session, or a new one.

        A kept connection that the server has closed fails in a way that leaves open whether the request arrived.
        """
        if fresh:
            with self._new_session() as session:
                yield session
            return
        if not hasattr(self._of_thread, "session"):
            self._of_thread.session = self._new_session()
            self._sessions.append(self._of_thread.session)
        yield self._of_thread.session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update({"User-Agent": AGENT, "Accept": "application/json"})
        session.trust_env = not self._loopback  # a proxy cannot reach our loopback
        return session

    # -- responses -----------------------------------------------------------------------------------------
    def _parse(self, response: requests.Response, action: str) -> Any:
        self._record_remaining(response.headers)
        self._record_time(response.headers)
        body, problem = _body(response)
        if HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST:
            target = urlsplit(response.headers.get("Location", "")).netloc or "another page"
            raise CloudError(
                f"{action}: {self._url} redirects to {target}; {self._remedies.url}",
                status=response.status_code,
            )
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            error = error_from_response(
                action,
                response.status_code,
                body,
                secret=self._secret,
                agent=AGENT,
                remedies=self._remedies,
            )
            if isinstance(error, RateLimitedError):
                error.retry_after_s = _retry_after_s(response.headers, error.payload)
            raise error
        if problem:
            raise CloudError(
                f"{action}: {self._url} answered {response.status_code} with {redact(problem, self._secret)}; "
                f"try again in some minutes, or {self._remedies.url}",
                status=response.status_code,
                effect_unknown=True,
            )
        return body

    def _record_remaining(self, headers: Mapping[str, str]) -> None:
        for name in ("RateLimit-Remaining", "X-RateLimit-Remaining"):
            left = headers.get(name, "")
            if left.isdigit():
                self._limiter.server_reported(int(left))
                return

    def _record_time(self, headers: Mapping[str, str]) -> None:
        with contextlib.suppress(ValueError):
            self.server_time = parsedate_to_datetime(headers.get("Date", "")).timestamp()

    def _connection_error(self, action: str, error: requests.RequestException, reason: str) -> CloudError:
        if _was_never_sent(error):
            return CloudError(
                f"{action}: {self._url} can't be reached; check the network, then {self._remedies.url}"
            )
        return CloudError(
            f"{action}: {reason} ({self._url}); check the network, then run it again", effect_unknown=True
        )


def _body(response: requests.Response) -> tuple[Any, str | None]:
    """Return the parsed JSON, or the text and what it is instead of JSON. An empty body is valid."""
    if not response.content.strip():
        return None, None
    with contextlib.suppress(ValueError):
        return response.json(), None
    text = response.text
    if text.lstrip()[:1] == "<" or "html" in response.headers.get("Content-Type", ""):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        titled = f" titled {' '.join(title[1].split())!r}" if title else ""
        return f"a web page{titled}", f"a web page{titled} instead of JSON"
    return text, "invalid JSON"


def _is_transient(error: CloudError) -> bool:
    """Whether another attempt may help: a lost or unreadable answer, but neither a refusal nor a redirect."""
    return (
        error.status is None
        or error.status < HTTPStatus.MULTIPLE_CHOICES
        or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _was_never_sent(error: requests.RequestException) -> bool:
    """Whether no connection was made, so that the request cannot have taken effect."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(
        reason, NewConnectionError | ConnectTimeoutError
    )


def _retry_after_s(headers: Mapping[str, str], payload: Mapping[str, Any]) -> float | None:
    for value in (headers.get("Retry-After"), payload.get("retryAfter")):
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, float(value))  # type: ignore[arg-type]
    return None
