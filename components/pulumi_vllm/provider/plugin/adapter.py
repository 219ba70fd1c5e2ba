"""The plugin's process: gRPC in, verbs of the resources out, sentences for every failure."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from pulumi_vllm import __version__
from pulumi_vllm.host.errors import Unreachable
from pulumi_vllm.provider.lifecycle.machine_state import check_instance_alive
from pulumi_vllm.provider.plugin.protocol import from_struct, message, to_struct
from pulumi_vllm.provider.plugin.resource import (
    Call,
    Failure,
    Kind,
    Partial,
    Resource,
    UserError,
    Values,
    check_shape,
    has_unknown,
)
from pulumi_vllm.provider.plugin.schema import RESOURCES, package_schema
from pulumi_vllm.provider.plugin.session import Session

pb = message("provider_pb2")
plugin_pb = message("plugin_pb2")
_Servicer: type = message("provider_pb2_grpc").ResourceProviderServicer

# The engine's own limit for one message (sdk/go/common/util/rpcutil in Pulumi's repository): 400 MiB.
_MESSAGE_BYTES = 400 * 1024 * 1024
_ASK_AFTER_S = (0.0, 3.0, 6.0)


class Servicer(_Servicer):  # type: ignore[misc] # generated code has no types
    """Pulumi's ResourceProvider service over the table of our resources."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # -- the plugin ---------------------------------------------------------------------------------
    async def GetPluginInfo(self, _request: Any, _context: Any) -> Any:
        return plugin_pb.PluginInfo(version=__version__)

    async def GetSchema(self, _request: Any, _context: Any) -> Any:
        return pb.GetSchemaResponse(schema=package_schema())

    async def Attach(self, request: Any, _context: Any) -> Any:
        self.session.engine_address = request.address
        return empty_pb2.Empty()

    async def CheckConfig(self, request: Any, _context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    async def DiffConfig(self, _request: Any, _context: Any) -> Any:
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Any, _context: Any) -> Any:
        for key, value in request.variables.items():
            self.session.config[key.rpartition(":")[2]] = value
        # Outputs only reach Construct: there a secret inside a map or a list stays one, and the rest stays plain.
        return pb.ConfigureResponse(acceptSecrets=True, acceptOutputs=True, supportsPreview=True)

    async def Cancel(self, _request: Any, _context: Any) -> Any:
        self.session.cancelled.set()
        return empty_pb2.Empty()

    async def Construct(self, request: Any, context: Any) -> Any:
        from pulumi_vllm.provider.plugin.construct import (
            construct,  # loads the whole SDK: other languages only
        )

        return await _sentences(context, lambda: construct(request, context, self.session.engine_address))

    # -- the resources ------------------------------------------------------------------------------
    async def Check(self, request: Any, context: Any) -> Any:
        resource, call = self._enter(request)
        new, old = from_struct(request.news), from_struct(request.olds)

        async def run() -> list[Failure]:
            return check_shape(resource, new) or await resource.check(call, new, old or None)

        failures = await _sentences(context, run)
        return pb.CheckResponse(
            inputs=to_struct(new),
            failures=[pb.CheckFailure(property=f.property, reason=f.reason) for f in failures],
        )

    async def Diff(self, request: Any, _context: Any) -> Any:
        resource, call = self._enter(request)
        found = resource.compare(from_struct(request.olds), from_struct(request.news), call.ignore)
        replaces = [path for path, kind in found.items() if kind is Kind.REPLACE]
        return pb.DiffResponse(
            changes=pb.DiffResponse.DIFF_SOME if found else pb.DiffResponse.DIFF_NONE,
            replaces=replaces,
            # A machine's volume has one writer, and names are unique: the old one always goes first.
            deleteBeforeReplace=bool(replaces),
            diffs=sorted({path.partition("[")[0] for path in found}),
            detailedDiff={
                path: pb.PropertyDiff(kind=getattr(pb.PropertyDiff, kind.value), inputDiff=True)
                for path, kind in found.items()
            },
            hasDetailedDiff=True,
        )

    async def Create(self, request: Any, context: Any) -> Any:
        resource, call = self._enter(request)
        new = from_struct(request.properties)

        async def run() -> Any:
            if request.preview:
                outputs = await resource.preview(call, new)
                return pb.CreateResponse(properties=_state(resource, new, outputs, unknown=True))
            resource_id, outputs = await _there(resource, call, new, resource.create(call, new))
            return pb.CreateResponse(id=resource_id, properties=_state(resource, new, outputs))

        return await _sentences(context, run, resource, new)

    async def Read(self, request: Any, context: Any) -> Any:
        resource, call = self._enter(request)
        state, inputs = from_struct(request.properties), from_struct(request.inputs)

        async def run() -> Any:
            found = await resource.read(call, request.id, state, inputs)
            if found is None:
                return pb.ReadResponse()
            if found.unhealthy:
                raise Partial(found.unhealthy, request.id, found.outputs)
            known = {name: value for name, value in found.inputs.items() if name in resource.inputs}
            return pb.ReadResponse(
                id=request.id,
                properties=_state(resource, known, found.outputs),
                inputs=to_struct(_mark(resource, known)),
            )

        return await _sentences(context, run, resource, inputs or state)

    async def Update(self, request: Any, context: Any) -> Any:
        resource, call = self._enter(request)
        old, new = from_struct(request.olds), from_struct(request.news)

        async def run() -> Any:
            if request.preview:
                outputs = {name: old.get(name) for name in resource.outputs}
                outputs |= await resource.preview_update(call, old, new)
                return pb.UpdateResponse(properties=_state(resource, new, outputs, unknown=True))
            outputs = await _there(resource, call, new, resource.update(call, request.id, old, new))
            return pb.UpdateResponse(properties=_state(resource, new, outputs))

        return await _sentences(context, run, resource, new)

    async def Delete(self, request: Any, context: Any) -> Any:
        resource, call = self._enter(request)
        state = from_struct(request.properties)

        async def run() -> Any:
            await resource.delete(call, request.id, state)
            return empty_pb2.Empty()

        return await _sentences(context, run)

    def _enter(self, request: Any) -> tuple[Resource, Call]:
        token = request.urn.split("::")[2].rpartition("$")[2]
        ignore = tuple(getattr(request, "ignoreChanges", ()))
        return RESOURCES[token], Call(
            request.urn,
            self.session,
            ignore,
            preview=getattr(request, "preview", False),
            timeout_s=getattr(request, "timeout", 0.0),
        )


def _mark(resource: Resource, values: Values) -> Values:
    """Wrap what is declared secret, wherever it came from."""
    from pulumi_vllm.provider.plugin.protocol import Secret

    declared = {**resource.inputs, **resource.outputs}
    return {
        name: Secret(value)
        if name in declared and declared[name].secret and value is not None and not isinstance(value, Secret)
        else value
        for name, value in values.items()
    }


def _state(resource: Resource, inputs: Values, outputs: Values, *, unknown: bool = False) -> Any:
    """Inputs and outputs as one state; outputs nobody can know yet are unknown in a preview."""
    from pulumi_vllm.provider.plugin.protocol import UNKNOWN

    values = {name: value for name, value in inputs.items() if name in resource.inputs} | outputs
    if unknown:
        values |= {name: UNKNOWN for name in resource.outputs if values.get(name) is None}
    return to_struct(_mark(resource, values))


async def _there(resource: Resource, call: Call, new: Values, work: Awaitable[Any]) -> Any:
    """What is done on a machine; where it went away meanwhile, the cloud is asked why."""
    try:
        return await work
    except Unreachable as error:
        if "instanceId" in resource.inputs:
            # A machine that is being taken is silent some seconds before the cloud says so.
            for pause_s in _ASK_AFTER_S:
                await call.sleep(pause_s)
                await check_instance_alive(call, new)
        raise UserError(f"{call.name}: {error}; run `pulumi up` again when the machine answers") from error


async def _sentences(
    context: Any,
    run: Callable[[], Awaitable[Any]],
    resource: Resource | None = None,
    inputs: Values | None = None,
) -> Any:
    """Run a verb; what it raises reaches the person as a sentence, a half-made thing as its state."""
    try:
        return await run()
    except Partial as error:
        if resource is None:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
        status_pb = message("status_pb2")
        values = inputs or {}
        detail = pb.ErrorResourceInitFailed(
            id=error.resource_id,
            properties=_state(resource, values, error.outputs),
            reasons=[str(error)],
            inputs=to_struct(_mark(resource, {n: v for n, v in values.items() if n in resource.inputs})),
        )
        status = status_pb.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(detail)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.UNKNOWN, str(error), trailing)
    except grpc.aio.AbortError:  # the SDK has answered a Construct: which input is missing
        raise
    except Exception as error:  # noqa: BLE001 (the last place before the engine)
        if os.environ.get("PULUMI_VLLM_DEBUG"):
            import traceback

            traceback.print_exc()
        await context.abort(grpc.StatusCode.UNKNOWN, _sentence(error))


def _sentence(error: Exception) -> str:
    """Our own errors speak for themselves; anything else names its type and where to report it."""
    known = isinstance(error, UserError) or type(error).__module__.startswith("pulumi_vllm.")
    if known:
        return str(error)
    return f"internal error in the vllm provider: {type(error).__name__}: {error}; PULUMI_VLLM_DEBUG=1 shows where"


async def serve(engine_address: str) -> None:
    """Answer until the engine goes."""
    session = Session(engine_address)
    limits = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=limits)
    message("provider_pb2_grpc").add_ResourceProviderServicer_to_server(Servicer(session), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    watch = asyncio.create_task(session.leave_with_parent(os.getppid()))
    await server.wait_for_termination()
    watch.cancel()


def main() -> None:
    """Entry point `pulumi-resource-vllm [ENGINE_ADDRESS]`."""
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(addresses[-1] if addresses else ""))


if __name__ == "__main__":
    main()

__all__ = ["has_unknown", "main", "serve"]
