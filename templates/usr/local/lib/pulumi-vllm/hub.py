"""Client of a model hub: file listing and ranged reads, with redirects and kept connections."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from reporting import CONFIG, Failure, printable

REDIRECTS, RETRIED = (301, 302, 303, 307, 308), (408, 425, 429, 500, 502, 503, 504)
REFUSED = 3  # exit code: token, licence, revision or name; a person has to act
LONGEST_RETRY_AFTER_S = 300.0  # the window of the public hub's limit
DEFAULT_PORTS = {"http": 80, "https": 443}


class TryAgain(Exception):  # noqa: N818
    """The hub asks for another try; `wait_s` is how long it asks to wait, `remedy` what a person may do."""

    def __init__(self, reason: str, wait_s: float = 0.0, remedy: str = "check the network") -> None:
        super().__init__(reason)
        self.wait_s, self.remedy = wait_s, remedy


def asked_wait_s(response: http.client.HTTPResponse) -> float:
    """The seconds of Retry-After, or until the window of RateLimit ("api";r=0;t=156) ends."""
    later = response.getheader("Retry-After", "").strip()
    window = re.search(r"(?:^|[;,\s])t=(\d{1,6})(?![\d.])", response.getheader("RateLimit", ""))
    seconds = later if later.isdecimal() else window[1] if window else "0"
    return min(float(seconds), LONGEST_RETRY_AFTER_S)


def origin(url: SplitResult) -> str:
    """Scheme, host and port of a URL. The token goes to the hub's own origin only."""
    return f"{url.scheme}://{url.hostname}:{url.port or DEFAULT_PORTS.get(url.scheme)}"


class Hub:
    """GET with redirects, and one kept connection per thread and host. The token is sent to the hub only."""

    def __init__(
        self, endpoint: str, repository: str, revision: str, *, token_file: str | None, timeout_s: float
    ) -> None:
        self.endpoint, self.repository, self.revision = endpoint.rstrip("/"), repository, revision
        self.hub_origin, self.token, self.timeout_s = origin(urlsplit(self.endpoint)), "", timeout_s
        self.connections, self.tls = threading.local(), ssl.create_default_context()
        if token_file:
            try:
                self.token = Path(token_file).read_text().strip()
            except OSError as error:
                raise Failure(f"{token_file}: can't read the hub token ({error.strerror})", CONFIG) from None
            if not re.fullmatch(r"[!-~]*", self.token):
                raise Failure(f"{token_file}: the hub token must be one line of ASCII; set it again", CONFIG)

    def file_url(self, path: str) -> str:
        """URL of a file in the revision."""
        return f"{self.endpoint}/{self.repository}/resolve/{self.revision}/{quote(path)}"

    def listing_page(self, url: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """One page of the file listing, and the URL of the next page."""
        tree = f"{self.endpoint}/api/models/{self.repository}/tree/{self.revision}"
        url = url or f"{tree}?recursive=true&expand=false"
        response, _ = self.get(url)
        rows = json.loads(response.read())
        if not isinstance(rows, list):
            raise Failure(f"{url}: the answer is not a file listing; check weights.endpoint", REFUSED)
        following = re.search(r'<([^>]+)>;\s*rel="next"', response.getheader("Link") or "")
        return rows, urljoin(url, following[1]) if following else None

    def get(self, url: str, span: tuple[int, int] | None = None) -> tuple[http.client.HTTPResponse, str]:
        """The response to one GET and the URL that sent it. Raises TryAgain, Failure or OSError."""
        requested = url
        for _ in range(6):
            target = urlsplit(url)
            headers = {"User-Agent": "pulumi-vllm", "Accept-Encoding": "identity"}
            if self.token and origin(target) == self.hub_origin:
                headers["Authorization"] = f"Bearer {self.token}"
            if span:
                headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
            response = self.send(target, headers)
            if response.status in (http.client.OK, http.client.PARTIAL_CONTENT):
                return response, url
            body = response.read(4096)
            if response.status not in REDIRECTS:
                self.drop_connection(url)
                foreign = origin(target) != self.hub_origin
                raise self.refusal(response, requested, body.decode(errors="replace"), foreign=foreign)
            if response.read(1):
                self.drop_connection(url)
            url = urljoin(url, response.getheader("Location") or "")
            if urlsplit(url).scheme not in ("https", target.scheme):
                insecure = f"redirects to {printable(url)}, which is less secure"
                raise Failure(f"{requested}: {insecure}; check weights.endpoint")
        raise Failure(f"{requested}: too many redirects; check weights.endpoint")

    def send(self, url: SplitResult, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send a GET on the kept connection, or on a new one if the server has closed it."""
        pool: dict[str, http.client.HTTPConnection] = self.connections.__dict__
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        kept = pool.pop(origin(url), None)
        for connection in (kept, self.new_connection(url)):
            if connection is None:
                continue
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
            except (ConnectionError, http.client.HTTPException):
                connection.close()
                if connection is not kept:
                    raise
            else:
                pool[origin(url)] = connection
                return response
        raise ConnectionResetError(
            "connection lost"
        )  # not reached: the second connection is never the kept one

    def new_connection(self, url: SplitResult) -> http.client.HTTPConnection:
        """A connection, which opens with its first request."""
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.netloc, timeout=self.timeout_s, context=self.tls)
        return http.client.HTTPConnection(url.netloc, timeout=self.timeout_s)

    def drop_connection(self, url: str) -> None:
        """Close a connection whose response was not read to its end."""
        connection = self.connections.__dict__.pop(origin(urlsplit(url)), None)
        if connection:
            connection.close()

    def refusal(self, response: http.client.HTTPResponse, url: str, body: str, *, foreign: bool) -> Exception:
        """The exception for an error status: TryAgain, or the Failure that ends the download."""
        status, name, code = response.status, self.repository, response.getheader("X-Error-Code", "")
        if (
            status in RETRIED or foreign
        ):  # a signed URL of another host expires, and the hub hands out a new one
            if status != http.client.TOO_MANY_REQUESTS or foreign:
                return TryAgain(f"status {status}", asked_wait_s(response))
            whose = "this token" if self.token else "this address"
            own = "" if self.token else "set the secret hf_token, since a token has its own budget; or "
            remedy = f"{own}run it again later"
            return TryAgain(
                f"status {status}, the hub limits the rate of {whose}", asked_wait_s(response), remedy
            )
        reply = printable(response.getheader("X-Error-Message") or body) or response.reason
        account = "the token was refused" if self.token else "no token is set"
        remedy = f"set the secret hf_token to a token of an account that may read {name}"
        if code == "GatedRepo" or status == http.client.FORBIDDEN:
            remedy = f"accept the terms at {self.endpoint}/{name} and {remedy}"
            return Failure(f"{name}: access is restricted and {account} ({reply}); {remedy}", REFUSED)
        if code == "RevisionNotFound":
            missing = f"{name}: revision {self.revision} does not exist"
            return Failure(f"{missing}; correct it in the catalogue", REFUSED)
        if status == http.client.UNAUTHORIZED or code == "RepoNotFound":
            missing = f"{name}: not found at {self.endpoint}, or it is private and {account} ({reply})"
            return Failure(f"{missing}; check the name, or {remedy}", REFUSED)
        unexpected = f"{url}: the hub answered {status} ({reply})"
        return Failure(f"{unexpected}; check the name and weights.endpoint", REFUSED)
