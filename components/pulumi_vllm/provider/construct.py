"""The component for programs in other languages: Server, served beside the resources."""

import json
from functools import cache
from typing import Any

from pulumi_vllm import __version__


@cache
def _host() -> Any:
    from pulumi.provider.experimental.component import ComponentProvider  # noqa: PLC0415

    from pulumi_vllm.server import Server  # noqa: PLC0415

    return ComponentProvider([Server], "vllm", None, __version__)


def component_schema() -> dict[str, Any]:
    """Resources and types of the component, inferred from its annotations."""
    parsed: dict[str, Any] = json.loads(_host().schema)
    return parsed


async def construct(request: Any, context: Any, engine_address: str) -> Any:
    """Run Server's constructor for a program that is not Python."""
    from pulumi.provider.server import ProviderServicer  # noqa: PLC0415
    from pulumi.runtime import proto  # noqa: PLC0415

    from .protocol import message  # noqa: PLC0415

    servicer = ProviderServicer(_host(), [], engine_address)
    answer = await servicer.Construct(proto.ConstructRequest.FromString(request.SerializeToString()), context)
    return message("provider_pb2").ConstructResponse.FromString(answer.SerializeToString())
