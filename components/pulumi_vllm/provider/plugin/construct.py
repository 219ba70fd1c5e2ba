"""The component for programs in other languages: Server, served beside the resources."""

import json
from functools import cache
from typing import Any, Final

from pulumi_vllm import __version__
from pulumi_vllm.provider.plugin.resource import UserError

_SECRET: Final = {
    "inputProperties": ("keys", "hfToken", "sshPrivateKey", "tlsPrivateKey"),
    "properties": ("apiKeys",),
}


@cache
def _host() -> Any:
    from pulumi import RunError
    from pulumi.provider.experimental.component import ComponentProvider
    from pulumi.provider.server import ComponentInitError

    from pulumi_vllm.component.discovery import inside_plugin
    from pulumi_vllm.component.server import Server

    inside_plugin.set()

    class Components(ComponentProvider):
        def construct(self, *args: Any, **kwargs: Any) -> Any:
            """The SDK would show a person's mistake as a traceback of ours."""
            try:
                return super().construct(*args, **kwargs)
            except ComponentInitError as error:
                raise error.inner if isinstance(error.inner, RunError) else error from None

    return Components([Server], "vllm", None, __version__)


def component_schema() -> dict[str, Any]:
    """Resources and types of the component, inferred from its annotations."""
    parsed: dict[str, Any] = json.loads(_host().schema)
    server = parsed["resources"]["vllm:index:Server"]
    for properties, names in _SECRET.items():  # annotations can't say so
        for name in names:
            server[properties][name]["secret"] = True
    return parsed


async def construct(request: Any, context: Any, engine_address: str) -> Any:
    """Run Server's constructor for a program that is not Python.

    Raises:
        UserError: the arguments have mistakes; all are listed.
    """
    from pulumi import RunError
    from pulumi.provider.server import ProviderServicer
    from pulumi.runtime import proto

    from pulumi_vllm.provider.plugin.protocol import message

    servicer = ProviderServicer(_host(), [], engine_address)
    asked = proto.ConstructRequest.FromString(request.SerializeToString())
    try:
        answer = await servicer.Construct(asked, context)
    except RunError as error:
        raise UserError(str(error)) from None
    return message("provider_pb2").ConstructResponse.FromString(answer.SerializeToString())
