"""A model hub's file listing and ranged reads: redirects, kept connections, and refusals as sentences."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from common import CONFIG, Stop, printable

REDIRECTS, AGAIN = (301, 302, 303, 307, 308), (408, 425, 429, 500, 502, 503, 504)
REFUSED = 3  # exit code: token, licence, revision or name; somebody has to act
LONGEST_WAIT_S = 300.0
PORTS = {"http": 80, "https": 443}


class Again(Exception):  # noqa: N818
    """The hub asked us to come back; `wait_s` is its Retry-After."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def origin(where: SplitResult) -> str:
    """Scheme, host and port: who may see the token."""
    return f"{where.scheme}://{where.hostname}:{where.port or PORTS.get(where.scheme)}"


class Hub:
    """GET with redirects and one kept connection per thread and host; only the hub itself sees the token."""

    def __init__(
        self, endpoint: str, repository: str, revision: str, *, token_file: str | None, timeout_s: float
    ) -> None:
        self.endpoint, self.repository, self.revision = endpoint.rstrip("/"), repository, revision
        self.home, self.token, self.timeout_s = origin(urlsplit(self.endpoint)), "", timeout_s
        self.local, self.tls = threading.local(), ssl.create_default_context()
        if token_file:
            try:
                self.token = Path(token_file).read_text().strip()
            except OSError as fault:
                raise Stop(f"{token_file}: can't read the hub token ({fault.strerror})", CONFIG) from None
            if not re.fullmatch(r"[!-~]*", self.token):
                raise Stop(f"{token_file}: the hub token must be one line of ASCII; set it again", CONFIG)

    def address(self, path: str) -> str:
        """Where a file of the revision is asked for."""
        return f"{self.endpoint}/{self.repository}/resolve/{self.revision}/{quote(path)}"

    def page(self, url: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """One page of the file listing, and the address of the next one."""
        tree = f"{self.endpoint}/api/models/{self.repository}/tree/{self.revision}"
        url = url or f"{tree}?recursive=true&expand=false"
        response, _ = self.get(url)
        rows = json.loads(response.read())
        if not isinstance(rows, list):
            raise Stop(f"{url}: the answer is no file listing; check weights.endpoint", REFUSED)
        more = re.search(r'<([^>]+)>;\s*rel="next"', response.getheader("Link") or "")
        return rows, urljoin(url, more[1]) if more else None

    def get(self, url: str, span: tuple[int, int] | None = None) -> tuple[http.client.HTTPResponse, str]:
        """One try of a GET: the response and the address that gave it, else Again, Stop or OSError."""
        asked = url
        for _ in range(6):
            where = urlsplit(url)
            headers = {"User-Agent": "pulumi-vllm", "Accept-Encoding": "identity"}
            if self.token and origin(where) == self.home:
                headers["Authorization"] = f"Bearer {self.token}"
            if span:
                headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
            response = self.send(where, headers)
            if response.status in (http.client.OK, http.client.PARTIAL_CONTENT):
                return response, url
            body = response.read(4096)
            if response.status not in REDIRECTS:
                self.drop(url)
                raise self.refusal(
                    response, asked, body.decode(errors="replace"), foreign=origin(where) != self.home
                )
            if response.read(1):
                self.drop(url)
            url = urljoin(url, response.getheader("Location") or "")
            if urlsplit(url).scheme not in ("https", where.scheme):
                raise Stop(f"{asked}: redirects to {printable(url)}, not as safe; check weights.endpoint")
        raise Stop(f"{asked}: too many redirects; check weights.endpoint")

    def send(self, where: SplitResult, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Ask on the kept connection, or on a new one where the server has closed that."""
        pool: dict[str, http.client.HTTPConnection] = self.local.__dict__
        target = (where.path or "/") + (f"?{where.query}" if where.query else "")
        kept = pool.pop(origin(where), None)
        for link in (kept, self.connection(where)):
            if link is None:
                continue
            try:
                link.request("GET", target, headers=headers)
                response = link.getresponse()
            except (ConnectionError, http.client.HTTPException):
                link.close()
                if link is not kept:
                    raise
            else:
                pool[origin(where)] = link
                return response
        raise ConnectionResetError("connection lost")  # not reached: the second link is never the kept one

    def connection(self, where: SplitResult) -> http.client.HTTPConnection:
        """Prepare a connection; it opens with its first request."""
        if where.scheme == "https":
            return http.client.HTTPSConnection(where.netloc, timeout=self.timeout_s, context=self.tls)
        return http.client.HTTPConnection(where.netloc, timeout=self.timeout_s)

    def drop(self, url: str) -> None:
        """Forget a connection whose body was not read to its end."""
        link = self.local.__dict__.pop(origin(urlsplit(url)), None)
        if link:
            link.close()

    def refusal(self, response: http.client.HTTPResponse, url: str, said: str, *, foreign: bool) -> Exception:
        """Turn a status into "come back" or into the sentence that ends the download."""
        status, name, code = response.status, self.repository, response.getheader("X-Error-Code", "")
        if status in AGAIN or foreign:  # a signed address of another host expires: the hub gives a new one
            later = response.getheader("Retry-After", "")
            return Again(f"status {status}", min(float(later), LONGEST_WAIT_S) if later.isdecimal() else 0.0)
        said = printable(response.getheader("X-Error-Message") or said) or response.reason
        given = "the token was refused" if self.token else "no token is set"
        remedy = f"set the secret hf_token to a token of an account that may read {name}"
        if code == "GatedRepo" or status == http.client.FORBIDDEN:
            remedy = f"accept the terms at {self.endpoint}/{name} and {remedy}"
            return Stop(f"{name}: access is restricted and {given} ({said}); {remedy}", REFUSED)
        if code == "RevisionNotFound":
            missing = f"{name}: revision {self.revision} does not exist"
            return Stop(f"{missing}; correct it in the catalogue", REFUSED)
        if status == http.client.UNAUTHORIZED or code == "RepoNotFound":
            what = f"{name}: not found at {self.endpoint}, or it is private and {given} ({said})"
            return Stop(f"{what}; check the name, or {remedy}", REFUSED)
        return Stop(
            f"{url}: the hub answered {status} ({said}); check the name and weights.endpoint", REFUSED
        )
