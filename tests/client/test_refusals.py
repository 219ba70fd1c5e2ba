"""Errors between the client and the model: one message each, with the right exit code."""

import contextlib
import socket
import threading

import pytest
from pulumi_vllm.cli import main

BENCH = ["bench", "--levels", "1", "--input", "8", "--output", "4"]


def last_line(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(("pulumi-vllm: ", f"pulumi-vllm {words[0]}: error: "))
    return code, last


@pytest.mark.parametrize("command", [["smoke"], BENCH])
class TestBothCommands:
    def test_a_wrong_key(self, command, engine, capsys, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "sk-planted")
        code, last = last_line(capsys, *command, "--url", engine.url)
        assert (code, "sk-planted" in last) == (1, False)
        assert "the key in VLLM_API_KEY was refused (401)" in last

    def test_no_key(self, command, engine, capsys, monkeypatch):
        monkeypatch.delenv("VLLM_API_KEY", raising=False)
        assert "a key is needed (401); export" in last_line(capsys, *command, "--url", engine.url)[1]

    def test_a_key_with_a_line_break_inside(self, command, engine, capsys, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "sk-planted\r\nHost: other")
        code, last = last_line(capsys, *command, "--url", engine.url)
        assert (code, "planted" in last) == (64, False)

    def test_a_model_that_is_not_served(self, command, engine, key, capsys):
        code, last = last_line(capsys, *command, "--url", engine.url, "--model", "other")
        assert (code, last.partition("/v1: ")[2]) == (
            1,
            "other is not served here; it serves mistral-small-4-tiny, pulumi-vllm/mistral-small-4-tiny",
        )

    def test_nothing_listens(self, command, capsys):
        with socket.socket() as sock:  # bound and not listening: refused
            sock.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            code, last = last_line(capsys, *command, "--url", url)
        assert code == 1
        assert "nothing answers" in last

    def test_an_unknown_host(self, command, capsys):
        assert "has no address" in last_line(capsys, *command, "--url", "http://host.invalid/v1")[1]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--url", "host/v1"], "is not the base URL of an API"),
            (["--url", "https://host"], "is not the base URL of an API"),
            (["--url", "https://host/v1?key=planted"], "is not the base URL of an API"),
            (["--url", "https://host/v1#planted"], "is not the base URL of an API"),
            (["--url", "name:planted@host/v1"], "is not the base URL of an API"),
            (["--url", "http://127.0.0.1:1/v1", "--ca", "/etc/hostname"], "does not use TLS"),
            (["--url", "https://name:planted@host/v1"], "put the key into VLLM_API_KEY"),
            (["--url", "http://192.0.2.1/v1"], "would be sent unencrypted"),
            (["--url", "https://host/v1", "--ca", "/missing.pem"], "--ca /missing.pem: cannot be read"),
            (["--url", "https://host/v1", "--ca", "/etc/hostname"], "is not a certificate in PEM format"),
            (["--url", "https://host/v1", "--stack", "x"], "give only one of them"),
            (["--ca", "x.pem"], "only valid with --url"),
        ],
    )
    def test_an_impossible_command_line_is_a_usage_error(self, command, words, message, key, capsys):
        code, last = last_line(capsys, *command, *words)
        assert code == 64
        assert message in last
        assert "planted" not in last

    def test_the_pulumi_cli_is_missing(self, command, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "pulumi is not on PATH" in last_line(capsys, *command)[1]


@pytest.mark.parametrize(
    "words",
    [["--levels", "0"], ["--levels", "1,x"], ["--input", "-1"], ["--output", "1.5"], ["--levels", " "]],
)
def test_invalid_numbers_are_refused(words, capsys):
    assert main(["bench", *words]) == 64
    assert "is not a whole number above 0" in capsys.readouterr().err


def test_more_tokens_than_the_context(engine, key, capsys):
    code, last = last_line(
        capsys, "bench", "--url", engine.url, "--input", "2000", "--output", "49", "--levels", "1"
    )
    assert code == 64
    assert "2049 tokens are more than the context of 2048" in last


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ('{"endpoint": "http://192.0.2.1/v1", "api_key": "sk-planted"}', "would be sent unencrypted"),
        (
            '{"endpoint": "https://192.0.2.1/v1", "api_key": "sk\\r\\nX: planted"}',
            "contains a character that is not allowed in a key",
        ),
        (
            '{"endpoint": "https://192.0.2.1/v1", "api_key": 7, "ca_certificate": "planted"}',
            "not allowed in a key",
        ),
        ('{"endpoint": "https://192.0.2.1/v1", "ca_certificate": 7}', "should be a certificate"),
        ('{"endpoint": 5, "api_key": "sk-planted"}', "has no output `endpoint`"),
        ("planted, not JSON", "did not print a JSON object"),
        ("[]", "did not print a JSON object"),
    ],
)
def test_invalid_outputs_of_a_stack(outputs, message, capsys, monkeypatch, tmp_path):
    (tmp_path / "outputs").write_text(outputs)
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(
        f'#!/bin/sh\n[ "$4" = stack ] && [ "$5" = output ] && cat {tmp_path}/outputs || echo shop\n'
    )
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    code, last = last_line(capsys, "smoke")
    assert code in {1, 64}
    assert message in last
    assert "planted" not in last


def test_the_client_stops_waiting_for_a_server_that_never_reads(key, monkeypatch):
    import asyncio

    from pulumi_vllm.client.endpoint import from_url
    from pulumi_vllm.client.errors import AnswerInterrupted
    from pulumi_vllm.client.gateway_session import GatewaySession

    connections = []

    async def ask() -> None:
        server = await asyncio.start_server(
            lambda *pair: connections.append(pair), "127.0.0.1", 0, limit=1024
        )
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            gateway = GatewaySession(from_url(url, None))
            gateway.read_timeout_s = 0.5
            async with gateway:
                await gateway.json("POST", "/chat/completions", {"x": "y" * (8 << 20)})
        finally:
            for _, writer in connections:
                writer.transport.abort()
            server.close()
            await asyncio.sleep(0.1)  # the client's transport learns that its unsent data is lost

    with pytest.raises(AnswerInterrupted, match="silent for"):
        asyncio.run(asyncio.wait_for(ask(), 30))


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "ended before the end of an answer; is https meant?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not valid HTTP/1.1"),
        (HEAD + b"Content-Length: 50\r\n\r\nshort", "ended before the end"),
        (HEAD + b"Content-Length: x\r\n\r\n", "is not valid HTTP/1.1"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "is not valid HTTP/1.1"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "ended before the end"),
        (HEAD + b"\r\n<html>\x1b[31mhello</html>", "the answer is not JSON (<html> [31mhello</html>)"),
        (HEAD + b"\r\n[]", "is not a list of models"),
        (HEAD + b'\r\n{"data": [1]}', "is not a list of models"),
        (HEAD + b'\r\n{"data": [{"id": "a\\u001b[31m"}, {"id": "b"}]}', "serves a [31m, b; name one"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "refused with status 500: oops"),
        (
            b"HTTP/1.1 404 No\r\nContent-Length: 22\r\n\r\n" + b'{"detail":"Not Found"}',
            "status 404: Not Found",
        ),
    ],
)
def test_answers_that_no_api_gives(answer, message, key, capsys):
    """The message is one line without control characters, and there is no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def serve() -> None:
            while server.fileno() >= 0:  # a client may repeat a GET that got no answer
                with contextlib.suppress(OSError):
                    link, _ = server.accept()
                    with link:
                        link.recv(65536)
                        link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, last = last_line(capsys, "smoke", "--url", f"http://127.0.0.1:{server.getsockname()[1]}/v1")
    thread.join(10)
    assert code == 1
    assert message in last
    assert last.isprintable()
