"""The plugin's process: Pulumi's provider service, served over gRPC by the resources of this package."""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from pulumi_vllm import __version__
from pulumi_vllm.host.errors import Unreachable
from pulumi_vllm.provider.lifecycle.access import way_back
from pulumi_vllm.provider.lifecycle.instance_liveness import check_instance_alive
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.package_schema import RESOURCES, package_schema
from pulumi_vllm.provider.plugin.protocol import (
    UNKNOWN,
    Context,
    Message,
    Secret,
    from_struct,
    protobuf_module,
    to_struct,
)
from pulumi_vllm.provider.plugin.resource import Failure, Kind, Resource, Values, check_shape
from pulumi_vllm.provider.plugin.session import Session

Result = TypeVar("Result")

pb = protobuf_module("provider_pb2")
plugin_pb = protobuf_module("plugin_pb2")
_Servicer: type = protobuf_module("provider_pb2_grpc").ResourceProviderServicer

# The engine's own limit for one message (sdk/go/common/util/rpcutil in Pulumi's repository): 400 MiB.
_MESSAGE_BYTES = 400 * 1024 * 1024
# The engine kills this process 5 s after SIGINT.
_GRACE_S = 2.0
# An instance that the provider reclaims stops answering some seconds before the API reports it.
_CHECK_INSTANCE_AFTER_S = (0.0, 3.0, 6.0)


class Servicer(_Servicer):  # type: ignore[misc] # generated code has no types
    """Pulumi's ResourceProvider service for the resources in `RESOURCES`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # -- the plugin ---------------------------------------------------------------------------------
    async def GetPluginInfo(self, _request: Message, _context: Context) -> Message:
        """Return the version of the plugin."""
        return plugin_pb.PluginInfo(version=__version__)

    async def GetSchema(self, _request: Message, _context: Context) -> Message:
        """Return the schema of the package."""
        return pb.GetSchemaResponse(schema=package_schema())

    async def Attach(self, request: Message, _context: Context) -> Message:
        """Take the address of an engine that did not start this process, as a debugger needs it."""
        self.session.engine_address = request.address
        return empty_pb2.Empty()

    async def CheckConfig(self, request: Message, _context: Context) -> Message:
        """Accept the configuration. `Session.cloud` checks it on first use."""
        return pb.CheckResponse(inputs=request.news)

    async def DiffConfig(self, _request: Message, _context: Context) -> Message:
        """Report no difference: another key or address replaces no resource."""
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Message, _context: Context) -> Message:
        """Take the configuration of the provider."""
        for key, value in request.variables.items():
            self.session.config[key.rpartition(":")[2]] = value
        # acceptOutputs affects Construct only: a secret inside a map or list stays secret, and its siblings stay plain.
        return pb.ConfigureResponse(acceptSecrets=True, acceptOutputs=True, supportsPreview=True)

    async def Cancel(self, _request: Message, _context: Context) -> Message:
        """Cancel all running operations."""
        self.session.cancelled.set()
        return empty_pb2.Empty()

    async def Construct(self, request: Message, context: Context) -> Message:
        """Construct the component for a program in another language."""
        # This loads the SDK, which only programs in other languages need.
        from pulumi_vllm.provider.plugin.construct import construct

        return await _report_errors(context, lambda: construct(request, context, self.session.engine_address))

    # -- the resources ------------------------------------------------------------------------------
    async def Check(self, request: Message, context: Context) -> Message:
        """Validate the inputs of a resource."""
        resource, call = self._resource_and_call(request)
        new, old = from_struct(request.news), from_struct(request.olds)

        async def run() -> list[Failure]:
            return check_shape(resource, new, old) or await resource.check(call, new, old or None)

        failures = await _report_errors(context, run)
        return pb.CheckResponse(
            inputs=to_struct(new),
            failures=[pb.CheckFailure(property=f.property, reason=f.reason) for f in failures],
        )

    async def Diff(self, request: Message, context: Context) -> Message:
        """Compare the inputs of a resource. An error here ends `pulumi up` before anything is deleted."""
        resource, call = self._resource_and_call(request)
        old, new = _old_values(resource, request), from_struct(request.news)
        differences = resource.compare(old, new, call.ignore)
        replaces = [path for path, kind in differences.items() if kind is Kind.REPLACE]
        if replaces:
            await _report_errors(context, lambda: resource.before_replacement(call, new))
        return pb.DiffResponse(
            changes=pb.DiffResponse.DIFF_SOME if differences else pb.DiffResponse.DIFF_NONE,
            replaces=replaces,
            # A volume has one writer, and names are unique: the old resource is always deleted first.
            deleteBeforeReplace=bool(replaces),
            diffs=sorted({path.partition("[")[0] for path in differences}),
            detailedDiff={
                path: pb.PropertyDiff(kind=getattr(pb.PropertyDiff, kind.value), inputDiff=True)
                for path, kind in differences.items()
            },
            hasDetailedDiff=True,
        )

    async def Create(self, request: Message, context: Context) -> Message:
        """Create a resource, or preview it."""
        resource, call = self._resource_and_call(request)
        new = from_struct(request.properties)

        async def run() -> Message:
            if request.preview:
                outputs = await resource.preview(call, new)
                return pb.CreateResponse(properties=_state(resource, new, outputs, unknown=True))
            resource_id, outputs = await _explain_unreachable(resource, call, new, resource.create(call, new))
            return pb.CreateResponse(id=resource_id, properties=_state(resource, new, outputs))

        return await _report_errors(context, run, resource, new)

    async def Read(self, request: Message, context: Context) -> Message:
        """Observe a resource, for a refresh or an import."""
        resource, call = self._resource_and_call(request)
        state, inputs = from_struct(request.properties), from_struct(request.inputs)
        # After an update that ended with `Partial`, the engine keeps the earlier inputs. The state has those that hold.
        held = resource.inputs.keys() - resource.input_only
        inputs |= {name: state[name] for name in held if state.get(name) is not None}
        # The state of an earlier version holds these too, until the next update; a refresh would print their end.
        earlier = {name: state[name] for name in resource.input_only if name in state}

        async def run() -> Message:
            if not state and resource.cannot_import:
                raise UserError(f"{call.name}: {resource.cannot_import}")
            reading = await resource.read(call, request.id, state, inputs)
            if reading is None:
                return pb.ReadResponse()
            if reading.unhealthy:
                raise Partial(reading.unhealthy, request.id, reading.outputs)
            known = {name: value for name, value in reading.inputs.items() if name in resource.inputs}
            return pb.ReadResponse(
                id=request.id,
                properties=_state(resource, known, reading.outputs | earlier),
                inputs=to_struct(_mark_secrets(resource, known)),
            )

        return await _report_errors(context, run, resource, inputs or state)

    async def Update(self, request: Message, context: Context) -> Message:
        """Update a resource in place, or preview the update."""
        resource, call = self._resource_and_call(request)
        old, new = _old_values(resource, request), from_struct(request.news)

        async def run() -> Message:
            if request.preview:
                outputs = resource.outputs_in(old)
                outputs |= await resource.preview_update(call, old, new)
                return pb.UpdateResponse(properties=_state(resource, new, outputs, unknown=True))
            updated = resource.update(call, request.id, old, new)
            outputs = await _explain_unreachable(resource, call, new, updated, old)
            return pb.UpdateResponse(properties=_state(resource, new, outputs))

        return await _report_errors(context, run, resource, new)

    async def Delete(self, request: Message, context: Context) -> Message:
        """Delete a resource."""
        resource, call = self._resource_and_call(request)
        state = from_struct(request.properties)

        async def run() -> Message:
            await resource.delete(call, request.id, state)
            return empty_pb2.Empty()

        return await _report_errors(context, run)

    def _resource_and_call(self, request: Message) -> tuple[Resource, Call]:
        call = Call(
            request.urn,
            self.session,
            ignore=tuple(getattr(request, "ignoreChanges", ())),
            preview=getattr(request, "preview", False),
            timeout_s=getattr(request, "timeout", 0.0),
        )
        return RESOURCES[call.type_token], call


def _old_values(resource: Resource, request: Message) -> Values:
    """Return the old state, with the inputs that its outputs leave out."""
    inputs = from_struct(request.old_inputs)
    return from_struct(request.olds) | {name: inputs[name] for name in resource.input_only if name in inputs}


def _mark_secrets(resource: Resource, values: Values) -> Values:
    """Wrap the values of all properties that are declared secret."""
    declared = {**resource.inputs, **resource.outputs}
    return {
        name: Secret(value)
        if name in declared and declared[name].secret and value is not None and not isinstance(value, Secret)
        else value
        for name, value in values.items()
    }


def _state(resource: Resource, inputs: Values, outputs: Values, *, unknown: bool = False) -> Message:
    """Merge inputs and outputs into one state. With `unknown`, outputs without a value are unknown."""
    held = resource.inputs.keys() - resource.input_only
    values = {name: value for name, value in inputs.items() if name in held} | outputs
    if unknown:
        values |= {name: UNKNOWN for name in resource.outputs if values.get(name) is None}
    return to_struct(_mark_secrets(resource, values))


async def _explain_unreachable(
    resource: Resource, call: Call, new: Values, work: Awaitable[Result], old: Values | None = None
) -> Result:
    """Run `work` on a host. When the host stops answering, ask the cloud why. Its firewall has the `old` ranges."""
    try:
        return await work
    except Unreachable as error:
        if "instanceId" in resource.inputs:
            for pause_s in _CHECK_INSTANCE_AFTER_S:
                await call.sleep(pause_s)
                await check_instance_alive(call, new)
        raise UserError(
            f"{call.name}: {error}{way_back(old or {})}; run `pulumi up` again when the host answers"
        ) from error


async def _report_errors(
    context: Context,
    run: Callable[[], Awaitable[Result]],
    resource: Resource | None = None,
    inputs: Values | None = None,
) -> Result:
    """Run a request. Turn an exception into an error message, and `Partial` into a state as well."""
    try:
        return await run()
    except Partial as error:
        if resource is None:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
        values = inputs or {}
        detail = pb.ErrorResourceInitFailed(
            id=error.resource_id,
            properties=_state(resource, values, error.outputs),
            reasons=[str(error)],
            inputs=to_struct(
                _mark_secrets(resource, {name: v for name, v in values.items() if name in resource.inputs})
            ),
        )
        status = protobuf_module("status_pb2").Status(
            code=grpc.StatusCode.UNKNOWN.value[0], message=str(error)
        )
        status.details.add().Pack(detail)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.UNKNOWN, str(error), trailing)
        raise
    except grpc.aio.AbortError:  # the SDK has answered a Construct request with its own message
        raise
    except Exception as error:
        if os.environ.get("PULUMI_VLLM_DEBUG"):
            traceback.print_exc()
        await context.abort(grpc.StatusCode.UNKNOWN, _error_message(error))
        raise


def _error_message(error: BaseException) -> str:
    """Return the message of one of our errors. Any other exception is an internal error."""
    if type(error).__module__.startswith("pulumi_vllm."):
        return str(error)
    return (
        f"internal error in the vllm provider: {type(error).__name__}: {error}; "
        "set PULUMI_VLLM_DEBUG=1 to see the traceback"
    )


class _ReportAllErrors(grpc.aio.ServerInterceptor):
    """Answers a request with an error whatever its handler raises.

    gRPC would end the process on SystemExit, and the engine may then end with success.
    """

    async def intercept_service(
        self, continuation: Callable[[Message], Awaitable[Message]], details: Message
    ) -> Message:
        """Wrap the handler of a request."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(request: Message, context: Context) -> Message:
            try:
                return await handler.unary_unary(request, context)
            except (
                grpc.aio.AbortError,
                NotImplementedError,
            ):  # answered already, the latter by the generated code
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 (reported to the engine)
                await context.abort(grpc.StatusCode.UNKNOWN, _error_message(error))

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


async def start_server(servicer: Servicer) -> tuple[grpc.aio.Server, int]:
    """Start to serve requests on loopback. Returns the server and its port."""
    limits = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=limits, interceptors=[_ReportAllErrors()])
    protobuf_module("provider_pb2_grpc").add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def serve(engine_address: str) -> None:
    """Serve requests until the engine ends this process with SIGINT, or exits."""
    session, stopped = Session(engine_address), asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    server, port = await start_server(Servicer(session))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    watch = asyncio.create_task(session.exit_with_parent(os.getppid()))
    await stopped.wait()
    watch.cancel()
    await session.close()
    await server.stop(_GRACE_S)


def main() -> None:
    """Run `pulumi-resource-vllm [ENGINE_ADDRESS]`."""
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    asyncio.run(serve(addresses[-1] if addresses else ""))
    # The engine waits for this process, and Python would take longer to free its modules than a request takes.
    os._exit(0)


if __name__ == "__main__":
    main()
