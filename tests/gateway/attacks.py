"""Attacks on the gateway: raw bytes and the correct statuses. tests/e2e runs them against a host as well.

`passes` means that the gateway may forward one request if it answers 200. It must not forward any other attack.
"""

from __future__ import annotations

from dataclasses import dataclass

OK, BAD, UNAUTHORIZED, NOT_FOUND, NO_LENGTH, TOO_LARGE = (200,), (400,), (401,), (404,), (411,), (413,)
NO_HTTP = (400, 501, 505)  # or the end of the connection
MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", *MESSAGES, "/tokenize", "/detokenize")
NAME = "/v1/models/pulumi-vllm"  # of the model at the hub, its first part
GETS = (
    "/v1/models",
    "/v1/models/mistral-small-4-tiny",
    f"{NAME}/mistral-small-4-tiny",
    f"{NAME}%2Fmistral-small-4-tiny",
)
ALLOWED = {*(f"POST {path} HTTP/1.1" for path in POSTS), *(f"GET {path} HTTP/1.1" for path in GETS)}
ALLOWED |= {"POST /v1/completions HTTP/1.0"}  # of an HTTP/1.0 client
CHUNKED = "Transfer-Encoding: chunked\r\n"
SECOND = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(frozen=True)
class Attack:
    name: str
    data: bytes
    statuses: tuple[int, ...]
    passes: bool = False


def request(
    key: str,
    path: str = "/v1/completions",
    method: str = "POST",
    body: bytes = b"{}",
    headers: str = "",
    *,
    auth: str | None = None,
    length: bool = True,
    version: str = "HTTP/1.1",
    host: str = "Host: gateway\r\n",
) -> bytes:
    """One request as it is sent over the wire; `headers` are whole lines."""
    authorization = f"Authorization: Bearer {key}\r\n" if auth is None else auth
    counted = f"Content-Length: {len(body)}\r\n" if length and (body or method == "POST") else ""
    head = f"{method} {path} {version}\r\n{host}{authorization}{headers}{counted}Connection: close\r\n\r\n"
    return head.encode("latin1") + body


def all_of(key: str, max_body: int) -> list[Attack]:
    """Every attack, with a valid key and the largest allowed body."""
    return [
        *routes(key),
        *authorizations(key),
        *x_api_keys(key),
        *origins(key),
        *paths(key),
        *bodies(key, max_body),
        *smuggling(key),
        *upgrades(key),
        *claims(key),
    ]


def routes(key: str) -> list[Attack]:
    found = [Attack(f"POST {path}", request(key, path), OK, passes=True) for path in POSTS]
    found += [Attack(f"GET {path}", request(key, path, "GET", b""), OK, passes=True) for path in GETS]
    found.append(Attack("GET /healthz without a key", request(key, "/healthz", "GET", b"", auth=""), OK))
    closed = (
        "/", "/invocations", "/metrics", "/docs", "/openapi.json", "/load", "/ping", "/version",
        "/tokenizer_info", "/health", "/healthz", "/pooling", "/score", "/rerank", "/v1/score", "/v1/models",
        "/v1/messages/batches", "/v1/embeddings", "/v1/chat/completions/batch", "/v1/chat/completions/render",
        "/v1/models/mistral-small-4-tiny", "/v1/audio/transcriptions", "/v1/responses/resp_1/cancel",
        "/v1/load_lora_adapter", "/sleep", "/wake_up",
        "/reset_prefix_cache",
        "/collective_rpc", "/server_info", "/start_profile", "/inference/v1/generate", "/scale_elastic_ep",
    )  # fmt: skip
    found += [Attack(f"POST {path}", request(key, path), NOT_FOUND) for path in closed]
    gets = (
        "/metrics",
        "/docs",
        "/load",
        "/openapi.json",
        "/version",
        "/v1/completions",
        "/v1/models/x",
        "/v1/models/",
        "/v1/models/mistral-small-4-tiny/",
        f"{NAME}%2fmistral-small-4-tiny",
        f"{NAME}/../mistral-small-4-tiny",
        f"{NAME}//mistral-small-4-tiny",
        "/v1/messages",
        "/tokenize",
        "/v1/responses/1",
    )
    found += [Attack(f"GET {path}", request(key, path, "GET", b""), NOT_FOUND) for path in gets]
    methods = ("HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "post", "get", "BREW")
    found += [Attack(f"{one} /v1/models", request(key, "/v1/models", one, b""), NOT_FOUND) for one in methods]
    found += [Attack(f"{one} /v1/completions", request(key, method=one), NOT_FOUND) for one in methods]
    found.append(Attack("CONNECT", request(key, "127.0.0.1:8000", "CONNECT", b""), (400, 404)))
    return found


def authorizations(key: str) -> list[Attack]:
    def auth(
        name: str, text: str, statuses: tuple[int, ...] = UNAUTHORIZED, *, passes: bool = False
    ) -> Attack:
        return Attack(f"authorization: {name}", request(key, auth=text), statuses, passes)

    import hashlib

    digest = hashlib.sha256(key.encode()).hexdigest()
    return [
        auth("none", ""),
        auth("unknown key", "Authorization: Bearer nope\r\n"),
        auth("no value", "Authorization:\r\n"),
        auth("no token", "Authorization: Bearer\r\n"),
        auth("empty token", "Authorization: Bearer \r\n"),
        auth("Basic", f"Authorization: Basic {key}\r\n"),
        auth("no scheme", f"Authorization: {key}\r\n"),
        auth("the hash of the key", f"Authorization: Bearer {digest}\r\n"),
        auth("key cut short", f"Authorization: Bearer {key[:-1]}\r\n"),
        auth("key and more", f"Authorization: Bearer {key}x\r\n"),
        auth("key in upper case", f"Authorization: Bearer {key.upper()}\r\n"),
        auth("key, comma", f"Authorization: Bearer {key},x\r\n"),
        auth("key, space, more", f"Authorization: Bearer {key} x\r\n"),
        auth("Bearer twice in one", f"Authorization: Bearer Bearer {key}\r\n"),
        auth("x-api-key", f"X-Api-Key: {key}\r\n"),
        auth("proxy header", f"Proxy-Authorization: Bearer {key}\r\n"),
        auth("cookie", f"Cookie: Authorization=Bearer {key}\r\n"),
        auth("tab for space", f"Authorization: Bearer\t{key}\r\n"),
        auth("two, right and wrong", f"Authorization: Bearer {key}\r\nAuthorization: Bearer x\r\n", BAD),
        auth("two, wrong and right", f"Authorization: Bearer x\r\nAuthorization: Bearer {key}\r\n", BAD),
        auth("two, the same", f"Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n", BAD),
        auth("lower case", f"authorization: bearer {key}\r\n", OK, passes=True),
        auth("upper case", f"AUTHORIZATION: BEARER {key}\r\n", OK, passes=True),
        auth("two spaces", f"Authorization: Bearer  {key}\r\n", OK, passes=True),
        auth("space after", f"Authorization: Bearer {key}  \r\n", OK, passes=True),
        auth("20,000 spaces", f"Authorization: Bearer {' ' * 20_000}{key}\r\n", OK, passes=True),
        auth("folded", f"Authorization: Bearer\r\n {key}\r\n", (200, 400), passes=True),
        auth("a list", f"Authorization: Bearer x, Bearer {key}\r\n"),
        auth("30,000 characters", f"Authorization: Bearer {'k' * 30_000}\r\n"),
        Attack("key in the query", request(key, f"/v1/completions?api_key={key}", auth=""), UNAUTHORIZED),
        Attack("routes are hidden before keys are asked for", request(key, "/metrics", auth=""), NOT_FOUND),
    ]  # fmt: skip


def x_api_keys(key: str) -> list[Attack]:
    """Keys in the header of the Messages API, which counts on the routes of its clients only."""

    def ask(
        name: str, lines: str, statuses: tuple[int, ...], path: str = MESSAGES[0], *, passes: bool = False
    ) -> Attack:
        method, body = ("GET", b"") if path.startswith("/v1/models") else ("POST", b"{}")
        return Attack(f"x-api-key: {name}", request(key, path, method, body, auth=lines), statuses, passes)

    mine, bearer, version = (
        f"X-Api-Key: {key}\r\n",
        f"Authorization: Bearer {key}\r\n",
        "Anthropic-Version: 2023-06-01\r\n",
    )
    return [
        *(ask(f"on {path}", mine + version, OK, path, passes=True) for path in (*MESSAGES, *GETS)),
        *(ask(f"on {path}", mine, UNAUTHORIZED, path) for path in POSTS if path not in MESSAGES),
        ask("on /metrics", mine, NOT_FOUND, "/metrics"),
        ask("unknown", "X-Api-Key: nope\r\n", UNAUTHORIZED),
        ask("empty", "X-Api-Key:\r\n", UNAUTHORIZED),
        ask("a space", "X-Api-Key: \r\n", UNAUTHORIZED),
        ask("with Bearer", f"X-Api-Key: Bearer {key}\r\n", UNAUTHORIZED),
        ask("cut short", f"X-Api-Key: {key[:-1]}\r\n", UNAUTHORIZED),
        ask("a list", f"X-Api-Key: x, {key}\r\n", UNAUTHORIZED),
        ask("in lower case", f"x-api-key: {key}\r\n", OK, passes=True),
        ask("spaces around", f"X-Api-Key:   {key}  \r\n", OK, passes=True),
        ask("two, the same", mine + mine, BAD),
        ask("two, wrong and right", f"X-Api-Key: x\r\n{mine}", BAD),
        ask("and Authorization, the same", mine + bearer, BAD),
        ask("right, Authorization wrong", f"{mine}Authorization: Bearer x\r\n", BAD),
        ask("wrong, Authorization right", f"X-Api-Key: x\r\n{bearer}", BAD),
        ask("right, Authorization empty", f"{mine}Authorization:\r\n", BAD),
        ask("beside Authorization elsewhere", f"X-Api-Key: x\r\n{bearer}", OK, "/v1/completions", passes=True),
    ]  # fmt: skip


def claims(key: str) -> list[Attack]:
    """Headers that only the gateway may send to the engine. It passes the request on with its own."""
    lines = (
        "X-Vllm-Priority: -9\r\n", "x-vllm-priority: 1\r\nX-VLLM-PRIORITY: -9\r\n", "X-Key-Tokens: 999999999\r\n",
        "X-Key-Tokens:\r\n", "X-Body-Timeout: 99999\r\n", "X-Key-Id: readiness\r\n", "X-Key-Id: a\r\nX-Key-Id: b\r\n",
        "X-Data-Parallel-Rank: 1\r\n", "Endpoint-Load-Metrics-Format: TEXT\r\n",
        "Connection: close, X-Key-Id, X-Vllm-Priority\r\n",
    )  # fmt: skip
    return [Attack(f"claim: {one.strip()!a}", request(key, headers=one), OK, passes=True) for one in lines]


def origins(key: str) -> list[Attack]:
    """Requests of browsers, of a page whose origin the stack file does not name."""
    asked = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
    return [
        Attack("origin: preflight", request(key, method="OPTIONS", body=b"", headers=asked), NOT_FOUND),
        Attack(
            "origin: none, preflight", request(key, method="OPTIONS", body=b"", headers=asked[30:]), NOT_FOUND
        ),
        Attack("origin: a page", request(key, headers="Origin: https://evil.example\r\n"), OK, passes=True),
    ]


def paths(key: str) -> list[Attack]:
    closed = (
        "/v1/../invocations", "/v1/chat/completions/../../../invocations", "//invocations", "//v1/models",
        "/%2e%2e/invocations", "/v1/%2e%2e/invocations", "/v1/chat/completions/..%2f..%2f..%2finvocations",
        "/V1/chat/completions", "/v1/Completions", "/v1/completions/", "/v1/completions/.", "/v1/completions/..",
        "/v1/./completions", "/v1//completions", "//v1/completions", "/v1/completions;x=1",
        "/v1/completions;/../../invocations", "/v1/completions%3f", "/v1/completions%00", "/v1/completions%20",
        "/v1/completions%0d%0aX:y", "/v1/%63ompletions", "/%76%31/completions", "/v1%2fcompletions", "/v1\\completions",
        "/v1/completions%23", "/v1/completions.json", "/v1/completions&x", "/v1/completions:x", "//host/v1/completions",
        '/v1/"x"\\', f"/{'x' * 20_000}", "/" + '"' * 20_000,
    )  # fmt: skip
    found = [Attack(f"path {path}", request(key, path), NOT_FOUND) for path in closed]
    absolute = ("http://evil/v1/completions", "ftp://evil/v1/completions", "HTTP://x//v1/completions")
    found += [Attack(f"path {path}", request(key, path), (400, 404)) for path in absolute]
    no_http = (
        "v1/completions",
        "\\v1\\completions",
        "*",
        "/v1/comp\xe9",
        "/v1/completions#/../invocations",
        "",
    )
    found += [Attack(f"path {path!a}", request(key, path), (400, 404)) for path in no_http]
    # The gateway forwards exactly what it matched: no query, no host in the request line.
    same = ("/v1/completions?x=/invocations", "/v1/completions?/../../invocations", "/v1/completions?",
            "/v1/completions?a#b",
            "http://gateway/v1/completions", "https://gateway/v1/completions?x=1", "ftp://gateway/v1/completions",
            "http://u:p@gateway/v1/completions", "http:///v1/completions", "/v1/completions\t")  # fmt: skip
    found += [Attack(f"path {path}", request(key, path), (200, 400), passes=True) for path in same]
    return found


def bodies(key: str, max_body: int) -> list[Attack]:
    def content_length(
        name: str, length: str, body: bytes = b"{}", statuses: tuple[int, ...] = NO_HTTP
    ) -> Attack:
        lines = "".join(f"Content-Length: {one}\r\n" for one in length.split("|"))
        return Attack(f"length {name}", request(key, body=body, headers=lines, length=False), statuses)

    return [
        content_length("one too many", str(max_body + 1), b"", TOO_LARGE),
        content_length("a terabyte", str(10**12), b"", TOO_LARGE),
        content_length("small in 32 bits", str(2**32 + 2), b"", TOO_LARGE),
        content_length("nine digits", "9" * 9, b"", TOO_LARGE),
        content_length("beyond 64 bits", "99999999999999999999"),
        content_length("signed", "+2"),
        content_length("negative", "-1"),
        content_length("hexadecimal", "0x2"),
        content_length("empty", "", SECOND),
        content_length("a word", "two"),
        content_length("two that differ", "2|50", b"{}" + SECOND),
        content_length("a list that differs", "2, 50", b"{}" + SECOND),
        Attack("no length", request(key, body=b"", length=False), NO_LENGTH),
        Attack("chunked", request(key, body=b"2\r\n{}\r\n0\r\n\r\n", headers=CHUNKED, length=False), NO_LENGTH),
        Attack("a body with GET", request(key, "/v1/models", "GET", SECOND), BAD),
        Attack("a huge header", request(key, headers=f"X-Long: {'x' * 40_000}\r\n"), NO_HTTP),
        Attack("five thousand headers", request(key, headers="X: y\r\n" * 5000), NO_HTTP),
        Attack("a huge path", request(key, f"/v1/{'x' * 40_000}"), (400, 404, 414)),
    ]  # fmt: skip


def smuggling(key: str) -> list[Attack]:
    def post(name: str, lines: str, rest: bytes, **more: str) -> Attack:
        data = request(key, body=b"", headers=lines, length=False, **more) + rest
        return Attack(f"smuggling: {name}", data, (*NO_HTTP, 404, 411, 422))

    chunked, two = CHUNKED, "Content-Length: 2\r\n"
    end = b"0\r\n\r\n" + SECOND
    found = [
        post("length and chunked", f"Content-Length: 5\r\n{chunked}", end),
        post("xchunked", f"{two}Transfer-Encoding: xchunked\r\n", b"{}" + SECOND),
        post("chunked, identity", "Transfer-Encoding: chunked, identity\r\n", end),
        post("identity, chunked", "Transfer-Encoding: identity, chunked\r\n", end),
        post("encoding twice", f"{chunked}Transfer-Encoding: identity\r\n", end),
        post("tab before chunked", f"{two}Transfer-Encoding:\tchunked\r\n", b"{}" + SECOND),
        post("space before the colon", f"{two}Transfer-Encoding : chunked\r\n", b"{}" + SECOND),
        post("vertical tab", f"{two}Transfer-Encoding: \x0bchunked\r\n", b"{}" + SECOND),
        post("HTTP/1.0 and chunked", f"{two}{chunked}", b"{}" + SECOND, version="HTTP/1.0"),
        post("bare CR in a value", f"{two}X: a\r{chunked}", b"{}" + SECOND),
        post("no header name", f"{two}: x\r\n", b"{}"),
        post("space in a header name", f"{two}X y: z\r\n", b"{}"),
        post("two hosts", f"{two}Host: evil\r\n", b"{}"),
        Attack("smuggling: GET and chunked", request(key, "/v1/models", "GET", end, chunked, length=False), NO_HTTP),
        Attack("smuggling: HTTP/0.9", b"GET /invocations\r\n\r\n", NO_HTTP),
        Attack("smuggling: bytes that are no HTTP", b"\x16\x03\x01GARB\x01AGE\r\n\r\n", NO_HTTP),
    ]  # fmt: skip
    # Unusual but unambiguous: the gateway forwards one clean request. The bytes after it are a separate request.
    headers = (f"{two}{two}", "Content-Length: 2, 2\r\n", "Content-Length:  2 \r\n", f"{two}X: y\r\n {chunked}",
               f"{two}X-Request-Id: evil\r\nX-Key-Id: root\r\nX-Forwarded-For: 9.9.9.9\r\nX-Data-Parallel-Rank: 3\r\n",
               f"{two}Connection: x-request-id, x-key-id\r\n", f"{two}Expect: 100-continue\r\n")  # fmt: skip
    found += [
        Attack(
            f"odd: {lines!r}",
            request(key, body=b"{}", headers=lines, length=False),
            (200, *NO_HTTP),
            passes=True,
        )
        for lines in headers
    ]
    found += [
        Attack(f"odd: {version}", request(key, version=version), (200, *NO_HTTP), passes=True)
        for version in ("HTTP/1.0", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0")
    ]
    hosts = (
        "",
        "Host:\r\n",
        "Host: evil/../x\r\n",
        "Host: 127.0.0.1:8000\r\n",
        "Host: gateway\r\nX-Forwarded-Host: evil\r\n",
    )
    found += [Attack(f"odd: host {one!r}", request(key, host=one), (200, 400), passes=True) for one in hosts]
    found += [
        Attack(
            "odd: lines that end in LF", request(key).replace(b"\r\n", b"\n"), (200, *NO_HTTP), passes=True
        ),
        Attack("odd: empty lines first", b"\r\n\r\n" + request(key), (200, *NO_HTTP), passes=True),
        Attack("odd: a space first", b" " + request(key), NO_HTTP),
        Attack("odd: a NUL in a name", request(key, headers="X\0: y\r\n"), NO_HTTP),
    ]
    pipelined = request(key).replace(b"Connection: close\r\n", b"") + SECOND
    return [*found, Attack("odd: a second request behind the first", pipelined, OK, passes=True)]


def upgrades(key: str) -> list[Attack]:
    websocket = (
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    h2c = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"

    def ask(path: str, method: str, lines: str, words: str = "Upgrade") -> bytes:
        data = request(key, path, method, b"{}" if method == "POST" else b"", lines)
        return data.replace(b"Connection: close", f"Connection: close, {words}".encode())

    return [
        Attack("websocket on /v1/models", ask("/v1/models", "GET", websocket), BAD),
        Attack("websocket on /v1/realtime", ask("/v1/realtime", "GET", websocket), NOT_FOUND),
        Attack(
            "websocket with POST, no body",
            ask("/v1/completions", "POST", websocket).replace(b"Content-Length: 2\r\n", b"")[:-2],
            BAD,
        ),
        Attack("websocket with POST", ask("/v1/completions", "POST", websocket), (200, 400), passes=True),
        Attack("h2c", ask("/v1/models", "GET", h2c, "Upgrade, HTTP2-Settings"), BAD),
        Attack("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", NO_HTTP),
    ]
