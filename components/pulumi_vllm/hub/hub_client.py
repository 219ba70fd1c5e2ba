"""Client of the model hub's API: revision, list of files, small files, and the headers of safetensors files.

It sends the token to the hub's own host only: large files are redirected to other hosts, which need none.
"""

from __future__ import annotations

import json
import struct
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm import __version__
from pulumi_vllm.hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPMessage
    from typing import IO

_TIMEOUT_S: Final = 30.0
_LARGEST_TEXT: Final = 64 * 2**20
"""Of a file that is read whole. The largest index of a published model has some 10 MB."""
_FIRST_READ: Final = 256 * 2**10
_LARGEST_HEADER: Final = 100_000_000
"""The format's own limit (safetensors 0.5, MAX_HEADER_SIZE)."""
_MOST_PAGES: Final = 100
_REFUSED: Final = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a safetensors header describes it; `size` is in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository with its size in bytes."""

    path: str
    size: int


class _OwnHostOnly(urllib.request.HTTPRedirectHandler):
    """Drops the token where a redirect leads to another host."""

    def redirect_request(  # noqa: PLR0917 - the signature of the standard library
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow a redirect as the standard library does, without the token on another host."""
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (
            found is not None
            and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc
        ):
            found.remove_header("Authorization")
        return found


class HubClient:
    """One repository of a model hub at one commit."""

    def __init__(self, endpoint: str, repository: str, token: str | None = None) -> None:
        """Prepare the client; `find_revision` makes the first request."""
        self._endpoint, self.repository, self._token = endpoint.rstrip("/"), repository, token
        self.revision = ""
        self._opener = urllib.request.build_opener(_OwnHostOnly)

    def find_revision(self, wanted: str | None = None) -> dict[str, Any]:
        """Pin the commit of a branch, tag or commit (default: the newest), and return what the hub says about it.

        Raises:
            HubError: there is no such repository or revision, or the token does not open it.
        """
        name = urllib.parse.quote(wanted or "main", safe="")
        found = self._json(f"/api/models/{self.repository}/revision/{name}")
        revision = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(revision, str) or len(revision) != 40:  # noqa: PLR2004 - hex digits of a commit
            raise HubError(
                f"{self._endpoint}: names no commit of {self.repository}; is this the address of a model hub?"
            )
        self.revision = revision
        return dict(found)

    def files(self) -> tuple[HubFile, ...]:
        """All files at this commit."""
        path: str | None = f"/api/models/{self.repository}/tree/{self.revision}?recursive=true"
        rows: list[HubFile] = []
        for _ in range(_MOST_PAGES):
            if path is None:
                break
            answer, headers = self._get(path)
            found = (row for row in self._parsed(answer, path) if row.get("type") == "file")
            rows += (HubFile(str(row["path"]), int(row["size"])) for row in found)
            path = _next_page(headers.get("Link", ""), self._endpoint)
        return tuple(rows)

    def json_file(self, path: str) -> Any:
        """A JSON file of the repository."""
        return self._parsed(self._get(self._address(path))[0], path)

    def text_file(self, path: str) -> str:
        """A small text file of the repository."""
        return self._get(self._address(path))[0].decode("utf-8", "replace")

    def tensors(self, path: str) -> Iterator[Tensor]:
        """The tensors of a safetensors file, of which only the header is fetched.

        Raises:
            HubError: the file has no such header.
        """
        first = self._range(path, 0, _FIRST_READ)
        length = struct.unpack("<Q", first[:8])[0] if len(first) >= 8 else 0  # noqa: PLR2004 - the length's bytes
        if not 0 < length <= _LARGEST_HEADER:
            raise HubError(
                f"{path}: has no header of a safetensors file; give a repository with safetensors files"
            )
        text = first[8 : 8 + length]
        if len(text) < length:
            text += self._range(path, 8 + len(text), length - len(text))
        header = self._parsed(text, path)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            yield Tensor(name, str(entry["dtype"]), tuple(entry["shape"]), int(end) - int(begin))

    def _address(self, path: str) -> str:
        return f"/{self.repository}/resolve/{self.revision}/{urllib.parse.quote(path)}"

    def _range(self, path: str, first: int, count: int) -> bytes:
        answer, _ = self._get(
            self._address(path), {"Range": f"bytes={first}-{first + count - 1}"}, most=count
        )
        return answer

    def _json(self, path: str) -> Any:
        return self._parsed(self._get(path)[0], path)

    def _parsed(self, answer: bytes, path: str) -> Any:
        try:
            return json.loads(answer)
        except ValueError:
            raise HubError(
                f"{self._endpoint}: {path} is not JSON; is this the address of a model hub?"
            ) from None

    def _get(
        self, path: str, headers: dict[str, str] | None = None, most: int = _LARGEST_TEXT
    ) -> tuple[bytes, HTTPMessage]:
        # S310: the address is a model hub's, http or https (checked by the caller).
        request = urllib.request.Request(  # noqa: S310
            f"{self._endpoint}{path}", headers={"User-Agent": f"pulumi-vllm/{__version__}", **(headers or {})}
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                return response.read(most), response.headers
        except urllib.error.HTTPError as error:
            raise HubError(self._refusal(error.code, path)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise HubError(
                f"{self._endpoint}: cannot be reached ({reason}); set --endpoint, or try again"
            ) from None

    def _refusal(self, status: int, path: str) -> str:
        what = f"{self._endpoint}: {self.repository}"
        if status in _REFUSED:
            return f"{what} is refused ({status}); accept its licence on its page, and set HF_TOKEN to your token"
        if status == HTTPStatus.NOT_FOUND and "/revision/" in path:
            return f"{what} or this revision does not exist, or is private; check both, or set HF_TOKEN"
        if status == HTTPStatus.NOT_FOUND:
            return f"{what} has no {path.rpartition('/')[2]} at {self.revision[:12]}; give a repository with this file"
        return f"{what}: the hub answered {status}; try again later"


def _next_page(link: str, endpoint: str) -> str | None:
    """The path of the next page, which the header Link names."""
    for part in link.split(","):
        address, _, relation = part.partition(";")
        if 'rel="next"' in relation:
            found = address.strip(" <>")
            return found.removeprefix(endpoint) if found.startswith(endpoint) else None
    return None
