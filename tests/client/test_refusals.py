"""What goes wrong on the way to a model is told in one sentence, and with the right exit code."""

import socket
import threading

import pytest
from pulumi_vllm.cli import main

BENCH = ["bench", "--levels", "1", "--input", "8", "--output", "4"]


def said(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("pulumi-vllm: ")
    return code, last


@pytest.mark.parametrize("command", [["smoke"], BENCH])
class TestBothCommands:
    def test_a_wrong_key(self, command, engine, capsys, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "sk-planted")
        code, last = said(capsys, *command, "--url", engine.url)
        assert (code, "sk-planted" in last) == (1, False)
        assert "the key in VLLM_API_KEY was refused (401)" in last

    def test_no_key(self, command, engine, capsys, monkeypatch):
        monkeypatch.delenv("VLLM_API_KEY", raising=False)
        assert "a key is needed (401); export" in said(capsys, *command, "--url", engine.url)[1]

    def test_a_key_with_a_line_break_inside(self, command, engine, capsys, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "sk-planted\r\nHost: other")
        code, last = said(capsys, *command, "--url", engine.url)
        assert (code, "planted" in last) == (64, False)

    def test_a_model_that_is_gone(self, command, engine, key, capsys):
        code, last = said(capsys, *command, "--url", engine.url, "--model", "other")
        assert (code, last.partition("/v1: ")[2]) == (
            1,
            "other is not served here; it serves mistral-small-4-tiny",
        )

    def test_nobody_there(self, command, capsys):
        with socket.socket() as sock:  # bound and not listening: refused
            sock.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            code, last = said(capsys, *command, "--url", url)
        assert code == 1
        assert "nobody answers" in last

    def test_no_such_host(self, command, capsys):
        assert "has no address" in said(capsys, *command, "--url", "http://host.invalid/v1")[1]

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--url", "host/v1"], "is not the base address of an API"),
            (["--url", "https://host"], "is not the base address of an API"),
            (["--url", "https://host/v1?key=planted"], "is not the base address of an API"),
            (["--url", "https://host/v1#planted"], "is not the base address of an API"),
            (["--url", "name:planted@host/v1"], "is not the base address of an API"),
            (["--url", "http://127.0.0.1:1/v1", "--ca", "/etc/hostname"], "speaks no TLS"),
            (["--url", "https://name:planted@host/v1"], "put the key into VLLM_API_KEY"),
            (["--url", "http://192.0.2.1/v1"], "would travel in clear"),
            (["--url", "https://host/v1", "--ca", "/missing.pem"], "--ca /missing.pem: can't be read"),
            (["--url", "https://host/v1", "--ca", "/etc/hostname"], "holds no certificate"),
            (["--url", "https://host/v1", "--stack", "x"], "give one of them"),
            (["--ca", "x.pem"], "it belongs to --url"),
        ],
    )
    def test_what_cannot_be_asked_is_a_usage_error(self, command, words, sentence, key, capsys):
        code, last = said(capsys, *command, *words)
        assert code == 64
        assert sentence in last
        assert "planted" not in last

    def test_no_engine_of_pulumi(self, command, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "pulumi: not found on PATH" in said(capsys, *command)[1]


@pytest.mark.parametrize(
    "words",
    [["--levels", "0"], ["--levels", "1,x"], ["--input", "-1"], ["--output", "1.5"], ["--levels", ""]],
)
def test_figures_that_are_none(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(["bench", *words])
    assert error.value.code == 64
    assert "is not a number above 0" in capsys.readouterr().err


def test_more_tokens_than_the_context(engine, key, capsys):
    code, last = said(
        capsys, "bench", "--url", engine.url, "--input", "2000", "--output", "49", "--levels", "1"
    )
    assert code == 64
    assert "2049 tokens are more than the context of 2048" in last


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ('{"endpoint": "http://192.0.2.1/v1", "api_key": "sk-planted"}', "would travel in clear"),
        (
            '{"endpoint": "https://192.0.2.1/v1", "api_key": "sk\\r\\nX: planted"}',
            "a character that no key has",
        ),
        ('{"endpoint": "https://192.0.2.1/v1", "api_key": 7, "ca_certificate": "planted"}', "no key has"),
        ('{"endpoint": "https://192.0.2.1/v1", "ca_certificate": 7}', "should hold a certificate"),
        ('{"endpoint": 5, "api_key": "sk-planted"}', "has no output `endpoint`"),
        ("planted, but no JSON", "printed no JSON object"),
        ("[]", "printed no JSON object"),
    ],
)
def test_odd_outputs_of_a_stack(outputs, sentence, capsys, monkeypatch, tmp_path):
    (tmp_path / "outputs").write_text(outputs)
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(
        f'#!/bin/sh\n[ "$4" = stack ] && [ "$5" = output ] && cat {tmp_path}/outputs || echo shop\n'
    )
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    code, last = said(capsys, "smoke")
    assert code in {1, 64}
    assert sentence in last
    assert "planted" not in last


def test_a_server_that_never_reads_is_not_waited_for(key, monkeypatch):
    import asyncio

    from pulumi_vllm.client.endpoint import from_url
    from pulumi_vllm.client.errors import Cut
    from pulumi_vllm.client.http import Connection

    async def ask(url: str) -> None:
        async with Connection(from_url(url, None)) as gateway:
            gateway._silence_s = 0.5
            await gateway.json("POST", "/chat/completions", {"x": "y" * (8 << 20)})

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with pytest.raises(Cut, match="silent for"):
            asyncio.run(asyncio.wait_for(ask(url), 30))


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "ended before the end of an answer; is https meant?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not framed as HTTP/1.1"),
        (HEAD + b"Content-Length: 50\r\n\r\nshort", "ended before the end"),
        (HEAD + b"Content-Length: x\r\n\r\n", "is not framed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "is not framed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "ended before the end"),
        (HEAD + b"\r\n<html>\x1b[31mhello</html>", "the answer is not JSON (<html> [31mhello</html>)"),
        (HEAD + b"\r\n[]", "is no list of models"),
        (HEAD + b'\r\n{"data": [1]}', "is no list of models"),
        (HEAD + b'\r\n{"data": [{"id": "a\\u001b[31m"}, {"id": "b"}]}', "serves a [31m, b; name one"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "refused with status 500: oops"),
        (
            b"HTTP/1.1 404 No\r\nContent-Length: 22\r\n\r\n" + b'{"detail":"Not Found"}',
            "status 404: Not Found",
        ),
    ],
)
def test_what_is_no_api(answer, sentence, key, capsys):
    """A server that says something else: one sentence, no control characters, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(65536)
                link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, last = said(capsys, "smoke", "--url", f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        thread.join(10)
    assert code == 1
    assert sentence in last
    assert last.isprintable()
