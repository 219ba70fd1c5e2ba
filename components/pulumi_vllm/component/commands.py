"""A user's commands on a server's host: pulumi-command resources with the host key set, in the right order."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from pulumi_command.remote import Command, ConnectionArgs

    from pulumi_vllm.component.server_args import HostCommand


def connection(host: Mapping[str, Any]) -> "ConnectionArgs":
    """Return the connection for pulumi-command's resources. Without a host key that plugin accepts any host."""
    _, connection_args = _remote()
    return connection_args(
        host=host["host"],
        port=host["port"],
        user=host["user"],
        private_key=pulumi.Output.secret(host["privateKey"]),
        host_key=host["hostKey"],
    )


def declare(
    server: pulumi.Resource,
    name: str,
    commands: Sequence["HostCommand"],
    host: Mapping[str, Any],
    *,
    machine: pulumi.Input[str],
    ready: pulumi.Resource,
    overlap: bool,
) -> "dict[str, Command]":
    """Declare one pulumi-command resource per entry, in order; a new machine replaces all of them.

    They delete before they replace, unless the machines `overlap`. Otherwise pulumi-command would run the old `delete`
    after the new `create` on one and the same host, and undo it.
    """
    if not commands:
        return {}
    remote_command, _ = _remote()
    declared: dict[str, Command] = {}
    for command in commands:
        declared[command["name"]] = remote_command(
            f"{name}-command-{command['name']}",
            connection=connection(host),
            create=command["create"],
            delete=command.get("delete"),
            stdin=command.get("stdin"),
            triggers=[machine],
            add_previous_output_in_env=False,  # sshd does not accept these variables, and each run would warn
            opts=pulumi.ResourceOptions(
                parent=server, depends_on=[ready, *declared.values()], delete_before_replace=not overlap
            ),
        )
    return declared


def _remote() -> "tuple[type[Command], type[ConnectionArgs]]":
    with warnings.catch_warnings():
        # Importing the module warns of a deprecated class that is not used here.
        warnings.simplefilter("ignore", DeprecationWarning)
        from pulumi_command.remote import Command, ConnectionArgs  # noqa: PLC0415 (0.2 s that most programs do not need)
    return Command, ConnectionArgs
