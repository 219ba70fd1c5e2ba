"""The rendered gateway under attack: the requests that reach the engine, and the answers that the attacker gets."""

import asyncio
import json
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import attacks
import pytest
from gateway_client import ERRORS, openai_error
from rendered_gateway import KEYS

KEY = KEYS["team-a"]
MIB = 2**20


async def test_only_allowed_routes_reach_the_engine(gateways, backend):
    gateway = gateways(
        requests_per_minute=1_000_000, streams_per_key=512, max_body_mib=1, request_timeout_s=5
    )
    attempts = attacks.all_of(KEY, MIB)
    assert len({one.name for one in attempts}) == len(attempts) > 190
    found = await gateway.all(one.data for one in attempts)
    expected, wrong = {}, []
    for attack, answers in zip(attempts, found, strict=True):
        first = answers[0].status if answers else 0
        refused_early = not answers and attack.statuses[: len(attacks.NO_HTTP)] == attacks.NO_HTTP
        if first not in attack.statuses and not refused_early:
            wrong.append((attack.name, [one.status for one in answers]))
        if any(one.status < 400 for one in answers[1:]):
            wrong.append((attack.name, "a second answer", [one.status for one in answers]))
        if first == 200 and attack.passes:
            expected[answers[0].headers["x-request-id"]] = attack.name
        for answer in answers:
            if answer.status in ERRORS and not attack.name.startswith("HEAD"):
                openai_error(answer)
    assert not wrong
    forwarded = [request.rid for request in backend.requests]
    assert sorted(forwarded) == sorted(expected), "every forwarded request belongs to one allowed request"
    for request in backend.requests:
        assert request.line in attacks.ALLOWED, expected[request.rid]
        names = [name for name, _ in request.headers]
        assert not {
            "authorization",
            "x-api-key",
            "origin",
            "upgrade",
            "x-data-parallel-rank",
            "x-key-tokens",
            "endpoint-load-metrics-format",
            "transfer-encoding",
        } & set(names)
        assert request.values("x-key-id") == ["team-a"]
        assert request.values("x-vllm-priority") == ["0"]
        assert request.values("x-forwarded-for") == ["127.0.0.1"]
        assert request.values("host") == ["localhost"]
        assert names.count("content-length") == (1 if request.line.startswith("POST") else 0)


GET = "/v1/models", "GET"
WEBSOCKET = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (attacks.request(KEY, body=b"0\r\n\r\n", headers=attacks.CHUNKED, length=False), "411 length_required", "Send"),
        (attacks.request(KEY, body=b"x" * (MIB + 1)), "413 body_too_large", "larger than 1 MiB. Send"),
        (attacks.request(KEY, "/v1/messages", headers=f"X-Api-Key: {KEY}\r\n"), "400 two_keys", "Two API keys: send"),
        (attacks.request(KEY, *GET, b"", headers=WEBSOCKET), "400 upgrade", "no WebSockets. Send"),
        (attacks.request(KEY, *GET, b"", headers="Upgrade: h2c\r\n"), "400 upgrade", "no WebSockets. Send"),
        (attacks.request(KEY, *GET, b"{}"), "400 body_with_get", "no body here. Send"),
        (attacks.request(KEY, *GET, b"0\r\n\r\n", attacks.CHUNKED, length=False), "400 body_with_get", "Send"),
        (attacks.request(KEY, headers="X: a\0b\r\n"), "400 control_character", "A header has"),
        (attacks.request(KEY, "/v1/model", "GET", b""), "404 not_found", "Write the path exactly"),
        (attacks.request(KEY, body=b"{").replace(b"Length: 1", b"Length: 9"), "408 timeout", "within 1 s. Send"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
async def test_each_refusal_names_its_one_cause_and_a_remedy(gateways, backend, data, error, says):
    (answer,) = await gateways(max_body_mib=1, request_timeout_s=1).ask(data)
    status, code = error.split()
    assert answer.status == int(status)
    assert says in json.loads(openai_error(answer, code).body)["error"]["message"]
    assert backend.requests == []


async def test_an_error_inside_haproxy_is_the_gateways_own(gateways):
    """HAProxy answers 500 when a rule fails, here because it has no room for one more header of the answer."""
    no_room = {"tune.bufsize 32768\n": "tune.bufsize 32768\n    tune.maxrewrite 16\n"}
    raw = f"HTTP/1.1 200 OK\r\nX-Large: {'x' * 32_600}\r\nContent-Length: 2\r\n\r\n{{}}"
    answer = await gateways(changes=no_room).one(attacks.request(KEY, body=json.dumps({"raw": raw}).encode()))
    assert openai_error(answer).status == 500


PAGE = "https://chat.example.com"
ORIGIN = f"Origin: {PAGE}\r\n"
HEADERS = "authorization,x-stainless-os"
ASKED = f"{ORIGIN}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {HEADERS}\r\n"


def preflight(path="/v1/completions", headers=ASKED):
    return attacks.request("", path, "OPTIONS", b"", headers, auth="")


async def test_a_page_of_a_named_origin_may_ask_and_read(gateways, backend):
    gateway = gateways(cors_origins=[PAGE, "http://localhost:3000"])
    answer = await gateway.one(preflight())
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == HEADERS
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert (await gateway.one(preflight("/v1/models"))).status == 204
    assert backend.requests == []
    for data, status in [
        (attacks.request(KEY, headers=ORIGIN), 200),
        (attacks.request("sk-unknown", headers=ORIGIN), 401),
        (attacks.request(KEY, "/metrics", headers=ORIGIN), 404),
        (attacks.request(KEY, body=b"", headers=ORIGIN, length=False), 411),
    ]:
        answer = await gateway.one(data)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert answer.headers["vary"] == "Origin"
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/metrics", ASKED),
        ("/v1/completions", ORIGIN),
        ("/v1/completions", ASKED.replace(PAGE, "https://chat.example.com.evil.example")),
        ("/v1/completions", ASKED.replace(PAGE, PAGE.upper())),
        ("/v1/completions", ASKED.replace(PAGE, "null")),
        ("/v1/completions", ASKED.replace(PAGE, f"{PAGE}, https://evil.example")),
        ("/v1/completions", ASKED + "Origin: https://evil.example\r\n"),
        ("/v1/completions", ASKED.replace("POST", "DELETE")),
        ("/v1/completions", ASKED.replace("x-stainless-os", 'x"<script>')),
        ("/v1/completions", ASKED + "Access-Control-Request-Headers: x-more\r\n"),
    ],
)  # fmt: skip
async def test_other_preflights_are_no_route(gateways, backend, path, headers):
    answer = openai_error(await gateways(cors_origins=[PAGE]).one(preflight(path, headers)))
    assert answer.status == 404
    assert answer.headers.get("access-control-allow-origin") in (None, PAGE)
    assert "access-control-allow-methods" not in answer.headers
    assert backend.requests == []


async def test_the_engines_own_permission_for_every_page_is_removed(gateways, backend):
    raw = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\n{}"
    data = attacks.request(
        KEY, body=json.dumps({"raw": raw}).encode(), headers="Origin: https://evil.example\r\n"
    )
    for limits in ({}, {"cors_origins": [PAGE]}):
        answer = await gateways(**limits).one(data)
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers
        assert backend.requests[-1].values("origin") == []


async def test_a_malformed_header_is_refused_or_cleaned(gateways, backend):
    """A NUL, a bare line feed and a folded line are refused, or forwarded as a clean request."""
    gateway = gateways()
    odd = ("X: a\0b\r\n", "X: a\nTransfer-Encoding: chunked\r\n", "X: a\r\n\tb\r\n", "X: a\rb\r\n")
    await gateway.all(attacks.request(KEY, headers=one) for one in odd)
    assert backend.requests, "no request was forwarded, so nothing was checked"
    for request in backend.requests:
        for name, value in request.headers:
            assert value.replace("\t", " ").isprintable(), (name, value)
            assert name != "transfer-encoding"


async def test_every_answer_has_a_request_id_and_no_server_header(gateways):
    gateway = gateways()
    for data in (attacks.request(KEY), attacks.request("nope"), attacks.request(KEY, "/x")):
        answer = await gateway.one(data)
        assert len(answer.headers["x-request-id"]) == 36
        assert "server" not in answer.headers


async def test_the_log_is_json_and_holds_no_key(gateways):
    gateway = gateways(max_body_mib=1, request_timeout_s=2)
    everything = attacks.all_of(KEY, MIB)
    await gateway.all(one.data for one in everything)
    text = gateway.log.read_text()
    assert KEY not in text
    assert "bearer" not in text.lower()
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    others = [line for line in text.splitlines() if not line.startswith(("{", "[NOTICE]"))]
    assert others == []
    assert {row["key"] for row in rows if row["status"] == 200 and row["path"] != "/healthz"} == {"team-a"}
    assert rows[0].keys() >= {
        "t",
        "rid",
        "src",
        "key",
        "m",
        "path",
        "status",
        "t_first",
        "t_all",
        "in",
        "out",
        "term",
    }


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"GET /v1/models and more HTTP/1.1\r\n\r\n"),
        (400, attacks.request(KEY, headers=f"X-Long: {'x' * 32_000}\r\n")),
        (400, attacks.request(KEY, headers=f"X-Long: {'x' * 70_000}\r\n")),
        (400, attacks.request(KEY, headers="X: y\r\n" * 100)),
        (408, b"POST /v1/comple"),
        (408, b"POST /v1/completions HTTP/1.1\r\nHost: gateway\r\n"),
        (413, attacks.request(KEY, *GET, b"{}", version="HTTP/1.0")),
        (422, attacks.request(KEY, headers="Transfer-Encoding: identity, chunked\r\n", length=False)),
    ],
    ids=[
        "no HTTP", "a huge header", "a header of 70 kB", "a hundred headers", "half a line", "half the headers",
        "a body with GET in HTTP/1.0", "an unknown encoding",
    ],
)  # fmt: skip
async def test_bytes_that_are_not_a_request_get_haproxys_own_page(gateways, backend, tmp_path, status, data):
    """The page reveals nothing about the program, the key or the machine, and the connection ends.

    Error files do not replace it. From HAProxy 3.3 on they do (its commit d252ec2be): there the template can have some.
    """
    (tmp_path / "error").write_text(f"HTTP/1.1 {status} Error\r\nContent-Length: 2\r\n\r\n{{}}")
    with_file = {"frontend api\n": f"    errorfile {status} {tmp_path}/error\nfrontend api\n"}
    for changes in (None, with_file):
        reader, writer = await gateways(changes=changes, request_timeout_s=1).connect()
        writer.write(data)
        received = (await asyncio.wait_for(reader.read(), 30)).decode()
        writer.close()
        assert received.startswith(f"HTTP/1.1 {status} ")
        head, _, page = received.partition("\r\n\r\n")
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:]}
        assert names <= {"content-length", "content-type", "cache-control", "connection"}
        assert re.fullmatch(rf"<html><body><h1>{status} [\w -]+</h1>\n[\w ']+\.\n</body></html>\n", page)
    assert backend.requests == []


async def test_other_tls_and_other_protocols_are_refused(gateways):

    gateway = gateways()
    assert not await _handshake(gateway, maximum=ssl.TLSVersion.TLSv1_1)
    assert await _handshake(gateway, maximum=ssl.TLSVersion.TLSv1_2) == "http/1.1"
    assert await _handshake(gateway, alpn=["h2"]) in {"", None}

    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(attacks.request(KEY))
    assert b"200" not in await reader.read(100), "plain HTTP got an answer"
    writer.close()


async def _handshake(gateway, *, maximum=None, alpn=("http/1.1",)):
    """The negotiated protocol: empty if there is none, False if the handshake is refused."""
    context = gateway.tls()
    context.set_alpn_protocols(list(alpn))
    if maximum:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = maximum
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.port, ssl=context, server_hostname="gateway"
        )
    except (ssl.SSLError, ConnectionError):
        return False
    agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    return agreed


def test_metrics_are_on_loopback_and_no_other_page_is(gateways):

    gateway = gateways()
    base = f"http://127.0.0.1:{gateway.metrics_port}"
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
        assert b"haproxy_frontend_http_requests_total" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/stats", timeout=10)
    refused.value.close()
    assert refused.value.code == 404


PROGRAMS = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm"
REPORT = (
    "import sys, gateway_admin as g; g.report_health(sys.argv[1], sys.argv[2], answered=sys.argv[3] == 'yes')"
)


def report(gateway, answered, health_map="health.map"):
    """Tell the gateway what the canary tells it."""
    words = [str(gateway.socket), str(gateway.folder / health_map), answered]
    command = [sys.executable, "-c", REPORT, *words]
    return subprocess.run(command, cwd=PROGRAMS, capture_output=True, text=True, check=False, timeout=30)


async def health(gateway):
    answer = await gateway.one(attacks.request(KEY, "/healthz", "GET", b"", auth=""))
    return answer.status, json.loads(answer.body)


async def test_healthz_tells_an_open_port_from_an_engine_that_gives_tokens(gateways):
    gateway, now = gateways(), int(time.time())
    assert await health(gateway) == (200, {"status": "listens"})  # the canary has not asked yet
    assert report(gateway, "no").returncode == 0
    assert await health(gateway) == (503, {"status": "no token"})
    assert report(gateway, "yes").returncode == 0
    status, found = await health(gateway)
    assert (status, found["status"], found["last_token_s"] < 30) == (200, "ok", True)
    # The last token came before the canary's last runs, all of which got none.
    for age_s, expected in ((180, 200), (181, 503)):
        gateway.command(f"set map {gateway.folder}/health.map asked_at {now}")
        gateway.command(f"set map {gateway.folder}/health.map token_at {now - age_s}")
        assert (await health(gateway))[0] == expected
    # A canary that does not run says nothing about the engine.
    gateway.command(f"set map {gateway.folder}/health.map asked_at {now - 3600}")
    gateway.command(f"set map {gateway.folder}/health.map token_at {now - 3600}")
    status, found = await health(gateway)
    assert (status, found["last_token_s"] >= 3600) == (200, True)
    gateway.reload()
    assert await health(gateway) == (200, {"status": "listens"})
    gateway.state("drain")
    assert (
        openai_error(await gateway.one(attacks.request(KEY, "/healthz", "GET", b"", auth=""))).status == 503
    )


def test_a_gateway_that_refuses_the_report_is_named_and_fails_nothing(gateways):
    refused = report(gateways(), "yes", "no-such.map")
    assert refused.returncode == 0
    assert "no-such.map: HAProxy refused to set asked_at (" in refused.stdout
    assert "run `pulumi up` again" in refused.stdout
