"""The endpoint is tried from where Pulumi runs: it answers, it does not, or it was not tried and the reason is told."""

import asyncio
import socket
import ssl

import pytest
from pulumi_vllm.provider.lifecycle import endpoint_check
from pulumi_vllm.provider.lifecycle.endpoint_check import observe_endpoint, prove_endpoint
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.resources import service
from pulumi_vllm.provider.resources.issued_certificates import issue, new_authority
from pulumi_vllm.provider.resources.service import Service
from scripted_host import Call, Host

HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
DRAINED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
CLIENT = "10.0.0.5"


def authority():
    return new_authority("test")[1]


OURS, OTHER = authority(), authority()


class Gateway:
    """A TLS server, which answers every request with the same bytes."""

    def __init__(self, folder):
        self.folder, self.answer, self.requests, self.port = folder, HEALTHY, [], 0

    async def start(self, names=("127.0.0.1",)):
        pem = self.folder / "tls.pem"
        pem.write_text(issue(OURS["certificate"], OURS["privateKey"], list(names))["pem"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    def values(self, name="127.0.0.1", certificate=OURS["certificate"], allow=("10.0.0.0/8",)):
        return {
            "connection": {"host": "127.0.0.1", "privateKey": "pem"},
            "endpoint": f"https://{name}:{self.port}/v1",
            "caCertificate": certificate,
            "access": {"allow": list(allow)},
        }


@pytest.fixture
async def gateway(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint_check, "_PAUSE_S", 0)
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Gateway(tmp_path)
    await made.start()
    yield made
    made.server.close()
    await made.server.wait_closed()


@pytest.fixture
def call():
    host = Host()
    host.client = CLIENT
    return Call(host)


async def test_an_endpoint_that_answers_is_evidence(gateway, call):
    assert await prove_endpoint(call, gateway.values()) == f"answered to {CLIENT}"
    (request,) = gateway.requests
    assert request.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert await observe_endpoint(call, gateway.values()) == "yes"
    assert call.lines == []


async def closed(gateway):
    gateway.server.close()
    await gateway.server.wait_closed()
    return {}


async def drained(gateway):
    gateway.answer = DRAINED
    return {}


async def silent(gateway):
    gateway.answer = b""
    return {}


async def another_certificate(_):
    return {"certificate": OTHER["certificate"]}


async def another_name(_):
    return {"name": "llm.example.com"}


async def no_certificate(_):
    return {"certificate": "PEM"}


PROBLEMS = [
    (closed, "Connect call failed|Connection refused"),
    (drained, "/healthz answered 503 Service Unavailable"),
    (silent, "closed the connection without an answer"),
    (another_certificate, "its certificate is not the declared one"),
    (another_name, r"its certificate is not the declared one \(Hostname mismatch"),
    (no_certificate, "TLS failed"),
]


@pytest.mark.parametrize(("fault", "problem"), PROBLEMS, ids=lambda value: getattr(value, "__name__", ""))
async def test_an_endpoint_that_does_not_answer_ends_up_and_is_a_difference(gateway, call, fault, problem):
    values = gateway.values(**await fault(gateway))
    with pytest.raises(
        UserError, match=rf"does not answer this computer \({CLIENT}\), which .*allow admits: "
    ) as error:
        await prove_endpoint(call, values)
    assert error.match(problem)
    assert (await observe_endpoint(call, values)).startswith("no: ")
    assert "does not answer this computer" in call.lines[-1]


async def test_a_port_that_says_nothing_is_given_up(gateway, call, monkeypatch):
    monkeypatch.setattr(endpoint_check, "_WITHIN_S", 0.3)
    monkeypatch.setattr(endpoint_check, "_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        gateway.port = mute.getsockname()[1]
        with pytest.raises(UserError, match="no answer within 0 s"):
            await prove_endpoint(call, gateway.values())


async def test_an_endpoint_that_does_not_admit_this_computer_is_not_tried(gateway, call):
    reason = f"the host sees this computer as {CLIENT}, which server.access.allow does not admit"
    assert await prove_endpoint(call, gateway.values(allow=["9.9.9.0/24"])) == f"not tried: {reason}"
    assert await observe_endpoint(call, gateway.values(allow=["9.9.9.0/24"])) == "yes"
    assert gateway.requests == []
    assert len(call.lines) == 2
    assert all(line.endswith(f"was not tried: {reason}") for line in call.lines)


async def test_a_failure_behind_a_proxy_proves_nothing(gateway, call, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert await prove_endpoint(call, gateway.values()) == f"answered to {CLIENT}"
    await closed(gateway)
    assert "HTTPS_PROXY says that this computer needs a proxy" in await prove_endpoint(call, gateway.values())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match="does not answer"):
        await prove_endpoint(call, gateway.values())


@pytest.mark.parametrize("name", ["endpoint", "caCertificate", "access"])
def test_another_endpoint_is_an_update_that_tries_it_and_restarts_nothing(gateway, name):
    """Otherwise a refresh would try the old one for ever."""
    old = gateway.values()
    assert set(Service().compare(old, old | {name: "new"})) >= {name}
    assert name not in service._RESTARTING_INPUTS


async def test_without_the_endpoint_of_a_program_nothing_is_tried(call):
    assert await prove_endpoint(call, {}) == "not tried: the program does not say which endpoint this is"
    assert await observe_endpoint(call, {}) == "yes"


async def test_an_unreachable_host_is_reported_once_by_its_resource(gateway):
    call = Call(None)
    assert await observe_endpoint(call, gateway.values()) == "yes"
    assert call.lines == []


async def test_a_name_without_a_dns_record_is_warned_of(tmp_path, call, monkeypatch):
    monkeypatch.setattr(endpoint_check, "_PAUSE_S", 0)
    gateway = Gateway(tmp_path)
    await gateway.start(names=["llm.invalid"])
    assert await prove_endpoint(call, gateway.values(name="llm.invalid")) == f"answered to {CLIENT}"
    (line,) = call.lines
    assert "the gateway at 127.0.0.1 answers as llm.invalid, but that name is not known to DNS here" in line
    gateway.server.close()
    await gateway.server.wait_closed()
