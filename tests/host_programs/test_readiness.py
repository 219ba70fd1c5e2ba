"""The readiness check against a small engine and a small TLS gateway: what passes, and the message of each failure."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Program

IDS = [5, 7, 11]
GOLDEN = hashlib.sha256(json.dumps(IDS).encode()).hexdigest()[:12]


def certificate(folder: Path, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a CA, and a certificate with its key for one address. Returns both paths."""
    key, ca_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = dt.datetime.now(dt.UTC)

    def build(name: str, public: Any, more: x509.ExtensionType) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        return builder.add_extension(more, critical=True).sign(ca_key, hashes.SHA256())

    ca = build("ca", ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    leaf = build("gateway", key.public_key(), names)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    (folder / "tls.pem").write_bytes(leaf.public_bytes(pem) + secret)
    return folder / "ca.pem", folder / "tls.pem"


class Behaviour:
    """How the engine and the gateway answer."""

    def __init__(self) -> None:
        self.unhealthy, self.busy, self.tokens, self.empty = 0, 0, IDS, False
        self.refuses: dict[str, tuple[int, str]] = {}  # "engine" or "gateway": the answer to a chat
        self.choice: dict[str, Any] = {}  # replaces parts of a choice
        self.bodies: list[tuple[str, dict[str, Any]]] = []


def serve(behaviour: Behaviour, key: str | None, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            behaviour.unhealthy -= 1
            self.answer(503 if behaviour.unhealthy >= 0 else 200, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            behaviour.bodies.append(("gateway" if key else "engine", body))
            if key and self.headers["Authorization"] != f"Bearer {key}":
                return self.answer(401, {"error": {"message": "Incorrect API key provided."}})
            if key and behaviour.busy:
                behaviour.busy -= 1
                return self.answer(503, {})
            if refused := behaviour.refuses.get("gateway" if key else "engine"):
                return self.answer(refused[0], {"error": {"message": refused[1]}})
            ids = [] if behaviour.empty else behaviour.tokens
            choice = {"message": {"content": "hello"}, "token_ids": ids} | behaviour.choice
            return self.answer(200, {"choices": [choice], "usage": {"completion_tokens": len(ids)}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def config(behaviour: Behaviour, tmp_path: Path) -> Iterator[dict[str, Any]]:
    ca, leaf = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(leaf)
    engine, gateway = serve(behaviour, None, None), serve(behaviour, "planted-key", tls)
    (tmp_path / "token").write_text("planted-key\n")
    yield {
        "gateway": f"https://127.0.0.1:{gateway.server_address[1]}",
        "ca": str(ca),
        "token_file": str(tmp_path / "token"),
        "model": "small",
        "golden": [{"prompt": "Hi", "max_tokens": 48, "reasoning_effort": "none", "sha256_12": GOLDEN}],
        "engine_url": f"http://127.0.0.1:{engine.server_address[1]}",
        "timeout_s": 20,
        "result": str(tmp_path / "result.json"),
        "server_name": "127.0.0.1",
        "unit": None,
    }
    for server in (engine, gateway):
        server.shutdown()
        server.server_close()


@pytest.fixture
def readiness(program: Callable[[str], Program]) -> Program:
    return program("readiness")


def result_of(config: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(Path(config["result"]).read_text())
    return result


def test_it_passes_and_reports_each_phase(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    behaviour.unhealthy = 1
    run = readiness(**config)
    assert (run.returncode, run.stderr) == (0, "")
    result = result_of(config)
    assert (result["passed"], result["why"], result["tokens_sha256"]) == (True, None, GOLDEN)
    assert result["engine_s"] >= 0.5
    assert {"warm_up_s", "gateway_s", "golden_s", "seconds"} <= set(result)
    assert [place for place, _ in behaviour.bodies] == ["engine", "gateway", "gateway"]
    last = behaviour.bodies[-1][1]
    assert (last["temperature"], last["return_token_ids"], last["reasoning_effort"]) == (0, True, "none")
    assert "answers: not checked, because the catalogue has none of this model" in run.stdout
    assert "answers_s" not in result
    assert "planted-key" not in run.stdout + json.dumps(result)


def test_it_waits_for_a_gateway_that_is_still_starting(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    behaviour.busy = 1
    assert readiness(**config).returncode == 0


def test_tokens_other_than_the_golden_ones_fail(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    behaviour.tokens = [5, 7, 12]
    run = readiness(**config)
    assert run.returncode == 1
    assert f"not {GOLDEN}, for 'Hi' (reasoning_effort none)" in run.stderr
    assert result_of(config)["passed"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine_url": "http://127.0.0.1:9", "timeout_s": 0}, "the engine is not healthy after 0 s"),
        ({"server_name": "127.0.0.2"}, "the gateway's certificate is not valid: IP address mismatch"),
        (
            {"ca": "/etc/ssl/certs/ca-certificates.crt"},
            "is not valid: unable to get local issuer",
        ),
        ({"token_file": "/dev/null"}, "the gateway refused the readiness check's key"),
        ({"token_file": "/nowhere"}, "/nowhere: can't be read"),
        ({"modell": 1}, "unknown keys modell"),
    ],
)
def test_each_failure_is_one_message(
    readiness: Program, config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    run = readiness(**config | change)
    assert run.returncode in (1, 2)
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert message in result_of(config)["why"]


@pytest.mark.parametrize("place", ["engine", "gateway"])
@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_refused_chat_fails(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any], place: str, status: int
) -> None:
    behaviour.refuses = {place: (status, "max_tokens is too large")}
    run = readiness(**config)
    assert run.returncode == 1
    base = config["engine_url"] if place == "engine" else config["gateway"]
    assert f"{base}: a chat got status {status} and no token" in run.stderr
    assert "max_tokens is too large" in result_of(config)["why"]


def test_an_answer_without_a_token_fails(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    behaviour.empty = True
    run = readiness(**config)
    assert run.returncode == 1
    assert "no token" in result_of(config)["why"]


ANSWERS = [{"prompt": f"Say hello {number}", "expected": "hello"} for number in range(2)]


def test_questions_are_asked_through_the_gateway_and_one_wrong_answer_is_tolerated(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    answers = [*ANSWERS, {"prompt": "What is 1 + 1?", "expected": "2"}]
    run = readiness(**config | {"golden": [], "answers": answers})
    assert (run.returncode, run.stderr) == (0, "")
    asked = [body["messages"][0]["content"] for place, body in behaviour.bodies if place == "gateway"]
    prompts = [answer["prompt"] for answer in answers]
    assert asked[1:7] == prompts * 2  # with cold caches, then with warm ones
    assert sorted(asked[7:]) == sorted((prompts * 3)[:8])


@pytest.mark.parametrize(
    "broken", [{"token_ids": [5, *[0] * 8]}, {"logprobs": {"content": [{"logprob": None}]}}]
)
def test_broken_arithmetic_is_never_tolerated(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any], broken: dict[str, Any]
) -> None:
    behaviour.choice = broken
    run = readiness(**config | {"golden": [], "answers": ANSWERS})
    assert run.returncode == 1
    assert f"{ANSWERS[0]['prompt']!r} got " in run.stderr
    assert "check the weights with `weights --verify`" in run.stderr


def test_wrong_answers_fail_and_are_shown(readiness: Program, config: dict[str, Any]) -> None:
    answers = [*ANSWERS, *({"prompt": f"What is {n} + 1?", "expected": str(n + 1)} for n in (1, 2))]
    run = readiness(**config | {"golden": [], "answers": answers})
    assert run.returncode == 1
    assert "2 of 4 questions got a wrong answer: 'What is 1 + 1?' got 'hello'; 'What is 2 + 1?'" in run.stderr
    assert "check the weights with `weights --verify`" in run.stderr


def test_each_of_several_engines_is_asked_itself(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any]
) -> None:
    """The gateway would choose one of them, so only the chat as a client's goes through it."""
    url = config.pop("engine_url")
    run = readiness(**config | {"engines": [{"engine_url": url, "unit": None}] * 2})
    assert (run.returncode, run.stderr) == (0, "")
    assert [place for place, _ in behaviour.bodies] == ["engine", "gateway", "engine"] * 2
    assert len(result_of(config)["golden"]) == 2


def test_an_engine_that_is_not_ready_fails_the_check_of_all(
    readiness: Program, config: dict[str, Any], unused_port: int
) -> None:
    down = {"engine_url": f"http://127.0.0.1:{unused_port}", "unit": None}
    url = config.pop("engine_url")
    run = readiness(**config | {"engines": [{"engine_url": url, "unit": None}, down], "timeout_s": 3})
    assert run.returncode == 1
    assert "the engine is not healthy after 3 s" in result_of(config)["why"]


def test_a_name_that_is_no_engine_is_an_error(
    readiness: Program, behaviour: Behaviour, config: dict[str, Any], tmp_path: Path
) -> None:
    only = tmp_path / "only"
    only.write_text("vllm@1.service\n")
    engines = [{"engine_url": config.pop("engine_url"), "unit": "vllm@0.service"}]
    assert readiness(**config | {"engines": engines, "only": str(only)}).returncode == 2
    assert "names vllm@1.service, which is no engine here" in result_of(config)["why"]
    assert behaviour.bodies == []
