"""The plugin's process: it ends without noise, and every exception in it is an error of the request."""

import asyncio
import os
import signal
import subprocess
import sys

import grpc
import grpc.aio
import pytest
from google.protobuf import empty_pb2
from pulumi_vllm.provider.plugin import adapter
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import from_struct, protobuf_module, to_struct
from pulumi_vllm.provider.plugin.session import Session

pb, stubs = protobuf_module("provider_pb2"), protobuf_module("provider_pb2_grpc")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_without_noise(signum):
    """The engine sends SIGINT at the end, and prints all of stderr if it takes the end for a crash."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi_vllm.provider.plugin.adapter"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    port = process.stdout.readline().strip()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        plugin = stubs.ResourceProviderStub(channel)
        plugin.GetPluginInfo(empty_pb2.Empty(), timeout=30)
        # A request is in flight, as after Ctrl-C.
        plugin.Diff.future(pb.DiffRequest(urn="urn:pulumi:s::p::vllm:host:Files::f"))
        plugin.Cancel(empty_pb2.Empty(), timeout=30)
    os.kill(process.pid, signum)
    _, noise = process.communicate(timeout=30)
    assert (process.returncode, noise) == (0, "")


class Faulty(adapter.Servicer):
    """Raises in a request that no resource handles."""

    error: BaseException = RuntimeError("broken")

    async def GetSchema(self, _request, _context):  # noqa: N802 (named by gRPC)
        raise self.error


RAISED = [
    (
        RuntimeError("broken"),
        "internal error in the vllm provider: RuntimeError: broken; set PULUMI_VLLM_DEBUG=1",
    ),
    (SystemExit(0), "internal error in the vllm provider: SystemExit: 0"),
    (asyncio.InvalidStateError("x"), "internal error in the vllm provider: InvalidStateError: x"),
    (UserError("what to do"), "what to do"),
]


@pytest.mark.parametrize(("error", "message"), RAISED, ids=lambda value: type(value).__name__)
async def test_every_exception_is_an_error_of_its_request_and_the_next_one_is_served(error, message):
    servicer = Faulty(Session(""))
    servicer.error = error
    server, port = await adapter.start_server(servicer)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        plugin = stubs.ResourceProviderStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as answer:
            await plugin.GetSchema(pb.GetSchemaRequest(), timeout=30)
        assert answer.value.code() == grpc.StatusCode.UNKNOWN
        assert answer.value.details().startswith(message)
        assert (await plugin.GetPluginInfo(empty_pb2.Empty(), timeout=30)).version
    await server.stop(0)


async def test_a_resource_that_is_not_known_is_an_error():
    server, port = await adapter.start_server(adapter.Servicer(Session("")))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        plugin = stubs.ResourceProviderStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="internal error in the vllm provider: KeyError"):
            await plugin.Diff(pb.DiffRequest(urn="urn:pulumi:s::p::vllm:host:Nothing::n"), timeout=30)
    await server.stop(0)


async def test_a_request_that_is_not_implemented_says_so():
    """The engine asks for a handshake first, and takes another answer than this for a crash."""
    server, port = await adapter.start_server(adapter.Servicer(Session("")))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as answer:
            await stubs.ResourceProviderStub(channel).Handshake(pb.ProviderHandshakeRequest(), timeout=30)
        assert answer.value.code() == grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


FILES = {
    "instanceId": "i",
    "connection": {},
    "observed": "yes",
    "files": {"/a": "declared\n", "/b": "1\n"},
    "attributes": {"/a": "0644 root:root", "/b": "0644 root:root"},
    "actions": {"/a": "nothing", "/b": "nothing"},
}
URN = "urn:pulumi:s::p::vllm:host:Files::n"


async def test_the_outputs_of_files_hold_no_texts():
    """A refresh prints a changed map among the outputs whole, which were 228 lines for one line of one file."""
    request = pb.CreateRequest(urn=URN, properties=to_struct(FILES), preview=True)
    created = await adapter.Servicer(Session("")).Create(request, None)
    outputs = from_struct(created.properties)
    assert outputs["paths"] == ["/a", "/b"]
    assert outputs.keys().isdisjoint({"files", "attributes", "actions"})


@pytest.mark.parametrize("earlier", [{}, {"files": FILES["files"], "attributes": FILES["attributes"]}])
async def test_a_changed_file_is_a_difference_although_the_outputs_do_not_show_it(earlier):
    """The state of an earlier version holds the texts twice, and the inputs are as the refresh observed them."""
    outputs = {name: FILES[name] for name in ("instanceId", "connection", "observed")} | earlier
    observed = FILES | {"files": FILES["files"] | {"/a": "edited\n"}}
    request = pb.DiffRequest(
        urn=URN, olds=to_struct(outputs), old_inputs=to_struct(observed), news=to_struct(FILES)
    )
    answer = await adapter.Servicer(Session("")).Diff(request, None)
    assert {path: one.inputDiff for path, one in answer.detailedDiff.items()} == {'files["/a"]': True}
