"""A model hub that the real `hf` client can download from, with faults that tests order."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import asdict, dataclass, fields
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pulumi_vllm_local.hub.content import Repository
    from pulumi_vllm_local.hub.published_models import HeaderRepository
    from pulumi_vllm_local.hub.tree import TreeFile

    AnyRepository = Repository | HeaderRepository

_PIECE = 1 << 16
_LOG_ROWS = 5000
_HEADER_READ = 1 << 20
"""Bytes from the start of a file that a client may read to find the header in them."""


@dataclass(slots=True)
class HubFaults:
    """The faults that are active; None means inactive."""

    rate: float | None = None  # bytes per second for each body
    cut: int | None = None  # close each body after this many bytes
    cuts: int | None = None  # for this many bodies only; for all if None
    corrupt: str | None = None  # flip one bit of the file of this path on the wire
    etag: str | None = None  # "wrong": send another digest
    auth: str | None = None  # answer 401 without this token
    gated: bool | None = None  # answer 403 for files without a token
    status: int | None = None  # answer with this status
    times: int | None = None  # for this many requests only
    code: str | None = (
        None  # with this X-Error-Code: RepoNotFound, RevisionNotFound, GatedRepo, EntryNotFound
    )
    on: str | None = None  # for api, head, get or resolve only
    retry_after: int | None = None  # seconds, with `status`
    xet: bool | None = None  # announce a Xet storage that does not exist
    clock: int | None = None  # seconds by which the Date header is wrong

    def change(self, values: dict[str, str]) -> None:
        """Set faults; an empty value clears one."""
        kinds = {item.name: str(item.type) for item in fields(self)}
        for name, text in values.items():
            if name not in kinds:
                raise ValueError(f"hub: no fault named {name}; there are {', '.join(kinds)}")
            kind = kinds[name]
            value: Any = text
            if kind.startswith("bool"):
                value = text not in {"0", "false"}
            elif not kind.startswith("str") and text:
                value = float(text) if kind.startswith("float") else int(text)
            setattr(self, name, value if text else None)


@dataclass(frozen=True, slots=True)
class Hub:
    """The repositories, the faults and the request log."""

    repositories: dict[str, AnyRepository]
    faults: HubFaults
    rows: deque[dict[str, Any]]


def application(repositories: Sequence[AnyRepository]) -> ASGIApp:
    """Return the hub as an application; `/_fault` and `/_log` are its controls."""
    hub = Hub({item.name: item for item in repositories}, HubFaults(), deque(maxlen=_LOG_ROWS))
    name = "/{owner}/{name}"
    routes = [
        Route("/_fault", _fault, methods=["GET", "POST"]),
        Route("/_log", _log, methods=["GET", "DELETE"]),
        Route(f"/api/models{name}", _model),
        Route(f"/api/models{name}/revision/{{revision:path}}", _model),
        Route(f"/api/models{name}/tree/{{revision}}", _tree),
        Route(f"{name}/resolve/{{revision}}/{{path:path}}", _resolve, methods=["GET", "HEAD"]),
    ]
    app = Starlette(routes=routes)
    app.state.hub = hub

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_"):
            await app(scope, receive, send)
            return
        span = dict(scope["headers"]).get(b"range", b"").decode("latin-1")
        row = {"at": round(time.time(), 3), "method": scope["method"], "path": scope["path"], "range": span,
               "status": None, "sent": 0}  # fmt: skip
        hub.rows.append(row)

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                row["status"] = message["status"]
                date = formatdate(time.time() + (hub.faults.clock or 0), usegmt=True)
                message["headers"] = [*message["headers"], (b"date", date.encode())]
            elif message["type"] == "http.response.body" and scope["method"] == "GET":
                row["sent"] += len(message.get("body", b""))
            await send(message)

        scope["hang_up"] = lambda: getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send_and_log)

    return logged


def _error(status: int, code: str | None, message: str, **headers: str) -> JSONResponse:
    named = {"X-Error-Code": code} if code else {}
    return JSONResponse({"error": message}, status, {"X-Error-Message": message} | named | headers)


def _find(request: Request, kind: str) -> tuple[AnyRepository | None, Response | None]:
    """Return the repository of a request, or the response that refuses it."""
    hub: Hub = request.app.state.hub
    faults = hub.faults
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if faults.auth and token != faults.auth:
        if token:
            refused = _error(401, "RepoNotFound", "Invalid credentials in Authorization header")
        else:
            refused = _error(401, None, "Invalid username or password.")
        return None, refused
    if faults.gated and not token and kind != "api":
        message = "Access to this model is restricted. You must be authenticated to access it."
        return None, _error(403, "GatedRepo", message)
    step = request.method.lower() if kind == "resolve" else kind
    if faults.status and faults.on in {None, kind, step} and faults.times != 0:
        if faults.times is not None:
            faults.times -= 1
        again = {"Retry-After": str(faults.retry_after)} if faults.retry_after is not None else {}
        return None, _error(faults.status, faults.code, "fault injected", **again)
    found = hub.repositories.get(f"{request.path_params['owner']}/{request.path_params['name']}")
    if found is None:
        return None, _error(404, "RepoNotFound", "Repository not found")
    revision = request.path_params.get("revision", "main")
    if revision not in {"main", found.revision}:
        return None, _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return found, None


async def _model(request: Request) -> Response:
    found, refused = _find(request, "api")
    if found is None:
        return refused or Response(status_code=500)
    return JSONResponse(
        {
            "_id": "0",
            "id": found.name,
            "modelId": found.name,
            "sha": found.revision,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [f"license:{found.license}"] if found.license else [],
            "siblings": [{"rfilename": file.path} for file in found.files],
        }
    )


async def _tree(request: Request) -> Response:
    found, refused = _find(request, "api")
    if found is None:
        return refused or Response(status_code=500)
    xet = request.app.state.hub.faults.xet
    more = [{"xetHash": "0" * 64} if xet and file.lfs else {} for file in found.files]
    return JSONResponse([file.listing() | extra for file, extra in zip(found.files, more, strict=True)])


def _span(text: str, size: int) -> tuple[int, int] | None:
    """Parse a Range header into first and last byte: the whole file if it is not one plain range, None if outside."""
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", text.strip())
    if match is None or match[0] == "bytes=-":
        return 0, size - 1
    if not match[1]:
        return max(0, size - int(match[2])), size - 1
    first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    return (first, last) if first <= last else None


async def _resolve(request: Request) -> Response:
    """Return a file, or a range of it."""
    found, refused = _find(request, "resolve")
    if found is None:
        return refused or Response(status_code=500)
    file = found.file(request.path_params["path"])
    if file is None:
        return _error(404, "EntryNotFound", "Entry not found")
    faults: HubFaults = request.app.state.hub.faults
    etag = "f" * 64 if faults.etag == "wrong" and file.lfs else file.etag
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found.revision, "Accept-Ranges": "bytes"}
    if faults.xet and file.lfs:
        headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": "/x"}
    requested = request.headers.get("range")
    span = _span(requested or "", file.size)
    if span is None:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{file.size}"})
    first, last = span
    if (
        request.method == "GET"
        and last >= max(_HEADER_READ, (found.folder / file.path).stat().st_size) < file.size
    ):
        return _error(403, None, "this repository of the local cloud has headers of weights only, no weights")
    status = 200
    if requested and request.method == "GET":
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
    length = last - first + 1 if request.method == "GET" else file.size
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/octet-stream")
    body = _body(request, found, file, first, length)
    return StreamingResponse(body, status, headers, media_type="application/octet-stream")


async def _body(
    request: Request, found: AnyRepository, file: TreeFile, first: int, length: int
) -> AsyncIterator[bytes]:
    """Yield the bytes, with the faults that were active when the body started."""
    faults: HubFaults = request.app.state.hub.faults
    left_to_cut = faults.cut if faults.cut and faults.cuts != 0 else None
    bad = file.size // 2 if faults.corrupt == file.path else -1
    at, end = first, first + length
    with (found.folder / file.path).open("rb") as source:
        source.seek(first)
        while at < end:
            # Beyond a header without weights are zeros, as far as a client reads with the header.
            piece = source.read(min(_PIECE, end - at)) or bytes(min(_PIECE, end - at))
            if at <= bad < at + len(piece):
                piece = piece[: bad - at] + bytes([piece[bad - at] ^ 0x40]) + piece[bad - at + 1 :]
            if left_to_cut is not None and at - first + len(piece) > left_to_cut:
                yield piece[: left_to_cut - (at - first)]
                await _cut(request, faults)
                return
            at += len(piece)
            yield piece
            if faults.rate:
                await asyncio.sleep(len(piece) / faults.rate)


async def _cut(request: Request, faults: HubFaults) -> None:
    """Close the connection in the middle of a body, after the data so far was sent."""
    if faults.cuts is not None:
        faults.cuts -= 1
    await asyncio.sleep(0.01)
    transport = request.scope["hang_up"]()
    if transport is None:
        raise RuntimeError("hub: this server's connections cannot be cut; serve the hub with uvicorn")
    transport.close()
    await asyncio.sleep(0.01)


async def _fault(request: Request) -> JSONResponse:
    """Set faults by query parameters; return the active ones."""
    hub: Hub = request.app.state.hub
    try:
        hub.faults.change(dict(request.query_params))
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    return JSONResponse({name: value for name, value in asdict(hub.faults).items() if value is not None})


async def _log(request: Request) -> JSONResponse:
    """Return the request log; DELETE also clears it."""
    hub: Hub = request.app.state.hub
    rows = list(hub.rows)
    if request.method == "DELETE":
        hub.rows.clear()
    return JSONResponse(rows)
