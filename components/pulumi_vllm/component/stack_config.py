"""A server's arguments from the configuration of the stack, for `Server.from_config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from pulumi_vllm.component import host_argument
from pulumi_vllm.component.server_args import ServerArgs, validated_plan
from pulumi_vllm.plan import stack_name


def read_args() -> ServerArgs:
    """Read the arguments from the namespace `pulumi-vllm` of the stack's configuration.

    Raises:
        pulumi.RunError: there is no block `server`, or it contradicts the stack's name.
    """
    config, stack = pulumi.Config("pulumi-vllm"), pulumi.get_stack()
    block = read_block(config, "server")
    if block is None:
        raise pulumi.RunError(stack_name.no_block(stack, _known_stacks()))
    keys = read_block(config, "keys") or {}
    args: ServerArgs = {
        "server": block,
        "keys": {name: pulumi.Output.secret(value) for name, value in keys.items()},
    }
    host = host_argument.from_config(config, read_block(config, "host"))
    if host is not None:
        args["host"] = host
    if token := config.get_secret("hfToken"):
        args["hf_token"] = token
    if notify_url := config.get_secret("notifyUrl"):
        args["notify_url"] = notify_url
    if certificate := config.get("tlsCertificate"):
        args["tls_certificate"] = certificate
    if private_key := config.get_secret("tlsPrivateKey"):
        args["tls_private_key"] = private_key
    if contradictions := stack_name.contradictions(stack, block):
        raise pulumi.RunError("\n".join((*contradictions, *_other_errors(args))))
    return args


def read_block(config: pulumi.Config, key: str) -> Mapping[str, Any] | None:
    """Read a key whose value is a block of keys. An error does not show the value, which may be a secret.

    Raises:
        pulumi.RunError: the value is not a block of keys.
    """
    try:
        found = config.get_object(key)
    except pulumi.ConfigTypeError:  # text: Pulumi keeps a block as JSON
        found = ""
    if found is None or isinstance(found, Mapping):
        return found
    remedy = (
        "`pulumi config set --secret --path 'pulumi-vllm:keys.NAME' VALUE` sets one"
        if key == "keys"
        else "docs/reference/stack-file.md lists them"
    )
    raise pulumi.RunError(f"pulumi-vllm:{key}: is not a block of keys; {remedy}")


def _other_errors(args: ServerArgs) -> list[str]:
    try:
        validated_plan(args)
    except pulumi.RunError as error:
        return str(error).splitlines()
    return []


def _known_stacks() -> list[str]:
    """Names of the stack files beside the program, or in its folder stacks/."""
    folder = Path.cwd()
    files = (*folder.glob("Pulumi.*.yaml"), *folder.glob("stacks/Pulumi.*.yaml"))
    return [file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files]
