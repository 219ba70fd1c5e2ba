"""What an update that fails says about the files and the engine that the host restored."""

from types import SimpleNamespace

import pytest
from pulumi_vllm.host.errors import HostError, Unreachable
from pulumi_vllm.host.ssh import Result
from pulumi_vllm.provider.lifecycle import rollback
from pulumi_vllm.provider.lifecycle.rollback import keep_what_is_ready, roll_back_after_failure
from pulumi_vllm.provider.plugin.errors import Cancelled, UserError

VALUES = {"connection": {"host": "192.0.2.7", "privateKey": "pem"}, "readyTimeoutS": 7}
RESTARTED = '{"files": ["/a"], "engine": null, "restarted": true, "error": null}'
REMEDY = "correct the change, then run `pulumi up` again"


class Call:
    """A request on a host that prints `result` for a rollback."""

    name = "server-service"

    def __init__(self, result="", failure=None):
        self.result, self.failure, self.ran, self.warned = result, failure, [], []
        self.session = SimpleNamespace(hosts=lambda: self)

    async def get(self, *_):
        return self

    async def run(self, script, **_):
        self.ran.append(script)
        if self.failure:
            raise self.failure
        return Result(self.result if "rollback.json" in script else "", "", 0)

    async def progress(self, _line):
        return

    async def warn(self, line):
        self.warned.append(line)

    def mark_changed(self, _host):
        return


async def failed(call, error, **more):
    with pytest.raises(type(error) if isinstance(error, (Cancelled, Unreachable)) else UserError) as caught:
        async with roll_back_after_failure(call, VALUES, **more):
            raise error
    return str(caught.value)


@pytest.fixture
def readiness(monkeypatch):
    """The readiness check after a rollback; it passes unless an error is put in."""
    errors = []

    class Check:
        def __init__(self, _call, _host, timeout_s, units):
            assert (timeout_s, units) == (VALUES["readyTimeoutS"], ("vllm.service",))

        async def result(self):
            if errors:
                raise errors[0]

    monkeypatch.setattr(rollback, "ReadinessCheck", Check)
    return errors


@pytest.mark.usefixtures("readiness")
async def test_a_restored_server_that_is_ready_is_named_after_the_reason():
    call = Call(RESTARTED)
    message = await failed(call, UserError("vllm.service failed: ValueError"), restarts=True)
    assert message == (
        f"vllm.service failed: ValueError; the previous files are back, and vLLM serves again with them; {REMEDY}"
    )
    assert [script for script in call.ran if "--undo" in script]


@pytest.mark.usefixtures("readiness")
async def test_a_restored_engine_is_named():
    message = await failed(Call(RESTARTED.replace("null", '"/opt/vllm-a"', 1)), HostError("lost"))
    assert "the previous files and engine are back, and vLLM serves again" in message


async def test_a_restored_server_that_is_not_ready_has_both_reasons(readiness):
    readiness.append(UserError("vllm.service failed: CUDA out of memory"))
    message = await failed(Call(RESTARTED), UserError("first"), restarts=True)
    assert message == (
        "first; the previous files are back, but vLLM is not ready with them: vllm.service failed: CUDA out of memory"
    )


async def test_files_that_vllm_was_never_stopped_for_need_no_readiness_check():
    message = await failed(Call(RESTARTED.replace("true", "false")), UserError("no space"))
    assert (
        message
        == f"no space; the previous files are back on the host, and vLLM serves on with them; {REMEDY}"
    )


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ('{"error": "/etc/x: Read-only file system"}', "/etc/x: Read-only file system"),
        ("", "/usr/local/lib/pulumi-vllm/rollback wrote no result"),
    ],
)
async def test_a_rollback_that_fails_has_both_reasons(result, reason):
    message = await failed(Call(result), UserError("first"), restarts=True)
    assert message.startswith(f"first; the previous files and engine could not be restored: {reason}")


@pytest.mark.parametrize(
    ("restarts", "ending"), [(True, "; vLLM was not ready, so nothing was restored"), (False, "")]
)
async def test_nothing_to_restore_is_said_after_a_start_only(restarts, ending):
    call = Call('{"nothing": "vLLM was not ready"}')
    assert await failed(call, UserError("first"), restarts=restarts) == f"first{ending}"
    assert ("restore --spare" in call.ran[0]) != restarts
    (line,) = [line for line in call.ran[0].splitlines() if "restore" in line or "start" in line]
    assert line.endswith(">&2 || true"), "what the host prints meanwhile is not the result"


@pytest.mark.parametrize(
    "error", [Cancelled("cancelled"), Unreachable("lost")], ids=["cancelled", "unreachable"]
)
async def test_a_cancelled_update_and_a_lost_host_are_left_as_they_are(error):
    call = Call()
    assert await failed(call, error, restarts=True) == str(error)
    assert call.ran == []


async def test_what_can_not_be_kept_is_a_warning():
    call = Call(failure=HostError("`rollback keep` failed with code 1", "no space", 1))
    await keep_what_is_ready(call, call)
    (line,) = call.warned
    assert line.startswith("server-service: a later update that fails can't be rolled back to this one: ")
