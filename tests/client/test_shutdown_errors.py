"""An answer that vLLM does not complete because it stops: it ends with an error, not with a cut connection."""

import asyncio
import json
import sys
from types import SimpleNamespace

import pytest
from adapted import ENGINE_MODULES

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
TEXT = "The server is shutting down; send the request again."


@pytest.fixture(scope="module")
def shutdown_errors():
    sys.path.insert(0, str(ENGINE_MODULES))
    import shutdown_errors

    yield shutdown_errors
    sys.path.remove(str(ENGINE_MODULES))
    del sys.modules["shutdown_errors"]


def answered(shutdown_errors, application, path="/v1/chat/completions", *, stops=True):
    """What a client gets from an application whose server stops after a moment."""
    sent, server = [], SimpleNamespace(should_exit=False)

    async def send(message):
        sent.append(message)

    async def run():
        asyncio.get_running_loop().call_later(0.1, setattr, server, "should_exit", stops)
        app = SimpleNamespace(state=SimpleNamespace(server=server))
        scope = {"type": "http", "method": "POST", "path": path, "app": app}
        passed = shutdown_errors.UntilShutdown(application)
        await asyncio.wait_for(passed(scope, None, send), 5)
        passed._watch.cancel()

    asyncio.run(run())
    return sent


def stream(*, then):
    """An application that sends an event, then does something."""

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await then(send)

    return application


async def hang(send):
    await asyncio.sleep(60)


async def finish(send):
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


@pytest.mark.parametrize(
    ("path", "begin", "kind"),
    [
        ("/v1/chat/completions", "\n\ndata: ", lambda error: error["error"]["type"] == "server_error"),
        ("/v1/completions", "\n\ndata: ", lambda error: error["error"]["code"] == 503),
        (
            "/v1/messages",
            "\n\nevent: error\ndata: ",
            lambda error: error["error"]["type"] == "overloaded_error",
        ),
        ("/v1/responses", "\n\nevent: error\ndata: ", lambda error: error["type"] == "error"),
    ],
)
def test_a_stream_that_hangs_ends_with_an_error_event(shutdown_errors, path, begin, kind):
    *_, last = answered(shutdown_errors, stream(then=hang), path)
    text = last["body"].decode()
    assert text.startswith(begin)
    assert text.endswith("\n\n")
    assert TEXT in text
    assert kind(json.loads(text.removeprefix(begin)))
    assert not last["more_body"]


def test_an_answer_that_has_not_begun_is_503_with_retry_after(shutdown_errors):
    async def application(scope, receive, send):
        await hang(send)

    start, body = answered(shutdown_errors, application)
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"10")
    assert json.loads(body["body"])["error"]["message"] == TEXT


def test_an_answer_that_completes_is_passed_on_as_it_is(shutdown_errors):
    assert len(answered(shutdown_errors, stream(then=finish), stops=False)) == 3

    async def finish_late(send):
        await asyncio.sleep(0.05)
        await finish(send)

    assert len(answered(shutdown_errors, stream(then=finish_late))) == 3


def test_an_error_of_the_application_is_passed_on(shutdown_errors):
    async def fail(send):
        raise ValueError("from the application")

    with pytest.raises(ValueError, match="from the application"):
        answered(shutdown_errors, stream(then=fail), stops=False)
