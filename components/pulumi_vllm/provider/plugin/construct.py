"""The component Server for programs in other languages. It is imported on use: the SDK takes 0.7 s."""

import json
from functools import cache
from typing import Any, Final

from pulumi import RunError
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError, ProviderServicer
from pulumi.runtime import proto

from pulumi_vllm import __version__
from pulumi_vllm.component import plugin_discovery
from pulumi_vllm.component.server import Server
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import Context, Message, protobuf_module

# Annotations can't mark a property of the component as secret.
_SECRET: Final = {
    "inputProperties": ("keys", "hfToken", "notifyUrl", "sshPrivateKey", "tlsPrivateKey"),
    "properties": ("apiKeys",),
}


@cache
def _component_provider() -> ComponentProvider:
    plugin_discovery.inside_plugin.set()

    class Components(ComponentProvider):
        def construct(self, *args: Any, **kwargs: Any) -> Any:
            """Report an invalid argument by its message. The SDK would print a traceback."""
            try:
                return super().construct(*args, **kwargs)
            except ComponentInitError as error:
                raise error.inner if isinstance(error.inner, RunError) else error from None

    return Components([Server], "vllm", None, __version__)


def component_schema() -> dict[str, Any]:
    """Return the schema of the component, which the SDK infers from its annotations."""
    parsed: dict[str, Any] = json.loads(_component_provider().schema or "{}")
    server = parsed["resources"]["vllm:index:Server"]
    for properties, names in _SECRET.items():
        for name in names:
            server[properties][name]["secret"] = True
    parsed["types"]["vllm:index:Host"]["properties"]["privateKey"]["secret"] = True
    return parsed


async def construct(request: Message, context: Context, engine_address: str) -> Message:
    """Construct a Server for a program in another language.

    Raises:
        UserError: arguments are invalid. The message lists all of them.
    """
    servicer = ProviderServicer(_component_provider(), [], engine_address)
    # The SDK has loaded its own copies of the generated modules.
    sdk_request = proto.ConstructRequest.FromString(request.SerializeToString())
    try:
        response = await servicer.Construct(sdk_request, context)
    except RunError as error:
        raise UserError(str(error)) from None
    return protobuf_module("provider_pb2").ConstructResponse.FromString(response.SerializeToString())
