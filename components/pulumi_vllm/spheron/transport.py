"""The one place that speaks HTTP with the rental API: headers, timeouts, retries where safe, sentences."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import re
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pulumi_vllm import __version__
from pulumi_vllm.spheron.budget import CallBudget
from pulumi_vllm.spheron.errors import CloudError, RateLimited
from pulumi_vllm.spheron.explain import clean, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AGENT = f"pulumi-vllm/{__version__}"
_TIMEOUTS_S = {"GET": 30.0, "DELETE": 60.0, "POST": 120.0, "PATCH": 60.0}
_CONNECT_S = 10.0
_ATTEMPTS = 5
# A told pause is never slept out in one go: another clock than ours may end it sooner.
_LOOK_AGAIN_S = 5.0


class _Bearer(requests.auth.AuthBase):
    """Sets the header after requests has looked for a .netrc, and shows the key to nobody."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def __repr__(self) -> str:
        return "_Bearer(***)"


class Http:
    """One base URL and one key; callable from several threads."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        budget: CallBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        most_wait_s: float = 30.0,
        timeouts_s: Mapping[str, float] | None = None,
    ) -> None:
        self._url, self._local = _checked(url)
        self._auth = _Bearer(_checked_key(api_key))
        self._secret = api_key
        self._budget = budget or CallBudget(clock=clock)
        self._clock = clock
        self.sleep = sleep
        self._most_wait_s = most_wait_s
        self._timeouts_s = {**_TIMEOUTS_S, **(timeouts_s or {})}
        self._mine = threading.local()
        self._kept: list[requests.Session] = []

    def __repr__(self) -> str:
        return f"Http({self._url!r})"

    @property
    def url(self) -> str:
        """The base URL, without credentials."""
        return self._url

    def close(self) -> None:
        """Close the connections of all threads."""
        for session in self._kept:
            session.close()

    def get(self, path: str, *, action: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET, repeated on a lost connection, a 5xx, nonsense, and 429."""
        return self._call("GET", path, action=action, params=params, repeat=True)

    def delete(self, path: str, *, action: str) -> Any:
        """DELETE, repeated like GET: a second one finds the thing gone."""
        return self._call("DELETE", path, action=action, repeat=True)

    def post(self, path: str, body: Mapping[str, Any], *, action: str) -> Any:
        """POST, repeated only on 429: after anything else it may have had its effect."""
        return self._call("POST", path, action=action, body=body)

    def patch(self, path: str, body: Mapping[str, Any], *, action: str) -> Any:
        """PATCH, repeated only on 429."""
        return self._call("PATCH", path, action=action, body=body)

    # -- one call, several tries -----------------------------------------------------------------------
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
        started = self._clock()
        attempt, limited = 0, False
        while True:
            self.sleep(self._budget.take())
            try:
                answer = self._once(method, path, action=action, params=params, body=body)
            except RateLimited as error:
                limited = True
                self._budget.refused()
                pause_s = min(error.retry_after_s or _LOOK_AGAIN_S, _LOOK_AGAIN_S)
                pause_s += random.uniform(0, 0.2 * pause_s)  # noqa: S311 (jitter)
                if self._clock() - started + pause_s > self._most_wait_s:
                    raise
            except CloudError as error:
                attempt += 1
                if not (repeat and _passing(error)) or attempt >= _ATTEMPTS:
                    raise
                pause_s = 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
                if attempt > 1 and self._clock() - started + pause_s > self._most_wait_s:
                    raise
            else:
                if limited:
                    self._budget.healed()
                return answer
            self.sleep(pause_s)

    def _once(
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
                answer = session.request(
                    method,
                    self._url + path,
                    params=dict(params or {}),
                    json=body,
                    auth=self._auth,
                    timeout=(_CONNECT_S, self._timeouts_s[method]),
                    allow_redirects=False,
                )
        except requests.Timeout as error:
            raise self._lost(action, error, f"no answer within {self._timeouts_s[method]:.0f} s") from None
        except requests.RequestException as error:
            raise self._lost(action, error, "the connection was lost") from None
        return self._read(answer, action)

    @contextlib.contextmanager
    def _session(self, *, fresh: bool) -> Any:
        """A session of this thread; a new one where a stale kept-alive connection would leave a doubt."""
        if fresh:
            with self._new_session() as session:
                yield session
            return
        if not hasattr(self._mine, "session"):
            self._mine.session = self._new_session()
            self._kept.append(self._mine.session)
        yield self._mine.session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update({"User-Agent": AGENT, "Accept": "application/json"})
        session.trust_env = not self._local  # a proxy can't reach our loopback
        return session

    # -- answers -----------------------------------------------------------------------------------------
    def _read(self, answer: requests.Response, action: str) -> Any:
        self._told(answer.headers)
        body, problem = _parsed(answer)
        if HTTPStatus.MULTIPLE_CHOICES <= answer.status_code < HTTPStatus.BAD_REQUEST:
            target = urlsplit(answer.headers.get("Location", "")).netloc or "another page"
            raise CloudError(
                f"{action}: {self._url} sends us to {target}; check SPHERON_URL", status=answer.status_code
            )
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            error = explain(action, answer.status_code, body, secret=self._secret, agent=AGENT)
            if isinstance(error, RateLimited):
                error.retry_after_s = _retry_after_s(answer.headers, error.payload)
            raise error
        if problem:
            raise CloudError(
                f"{action}: {self._url} answered {answer.status_code} with {clean(problem, self._secret)}; "
                "check SPHERON_URL, or try again in some minutes",
                status=answer.status_code,
                acted=None,
            )
        return body

    def _told(self, headers: Mapping[str, str]) -> None:
        for name in ("RateLimit-Remaining", "X-RateLimit-Remaining"):
            left = headers.get(name, "")
            if left.isdigit():
                self._budget.told(int(left))
                return

    def _lost(self, action: str, error: requests.RequestException, what: str) -> CloudError:
        if _never_sent(error):
            return CloudError(
                f"{action}: {self._url} can't be reached; check the network and SPHERON_URL", acted=False
            )
        return CloudError(f"{action}: {what} ({self._url}); check the network, then run it again", acted=None)


def _parsed(answer: requests.Response) -> tuple[Any, str | None]:
    """The JSON of an answer, or what it is instead; no body at all is an answer too."""
    if not answer.content.strip():
        return None, None
    with contextlib.suppress(ValueError):
        return answer.json(), None
    words = answer.text
    if words.lstrip()[:1] == "<" or "html" in answer.headers.get("Content-Type", ""):
        title = re.search(r"<title[^>]*>(.*?)</title>", words, re.IGNORECASE | re.DOTALL)
        named = f" titled {' '.join(title[1].split())!r}" if title else ""
        return f"a web page{named}", f"a web page{named} instead of JSON"
    return words, "something that is no JSON"


def _passing(error: CloudError) -> bool:
    """Whether trying again may help: trouble on the way or at the server, no refusal and no redirect."""
    return (
        error.status is None
        or error.status < HTTPStatus.MULTIPLE_CHOICES
        or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _never_sent(error: requests.RequestException) -> bool:
    """Whether not even a connection came about, so that nothing can have been done."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(
        reason, NewConnectionError | ConnectTimeoutError
    )


def _retry_after_s(headers: Mapping[str, str], payload: Mapping[str, Any]) -> float | None:
    for value in (headers.get("Retry-After"), payload.get("retryAfter")):
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, float(value))  # type: ignore[arg-type]
    return None


def _checked(url: str) -> tuple[str, bool]:
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    local = host == "localhost"
    with contextlib.suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    if parts.scheme not in {"http", "https"} or not host:
        raise CloudError("SPHERON_URL: not a web address; use https://app.spheron.ai or leave it out")
    if parts.scheme == "http" and not local:
        raise CloudError(f"SPHERON_URL: http://{host} would carry the API key in clear; use https")
    port = f":{parts.port}" if parts.port else ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{port}{parts.path.rstrip('/').removesuffix('/api')}", local


def _checked_key(key: str) -> str:
    if not key.strip():
        raise CloudError("SPHERON_API_KEY: empty; make a key in the dashboard's settings (API) and set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CloudError("SPHERON_API_KEY: holds characters that no key has; copy it again, without spaces")
    return key
