"""A person's own commands on a server's host: pulumi-command with the host key set and in the right order."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from pulumi_command.remote import Command, ConnectionArgs

    from pulumi_vllm.component.arguments import HostCommand


def connection(host: Mapping[str, Any]) -> "ConnectionArgs":
    """A host for pulumi-command's resources. Without a host key that plugin talks to anybody."""
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
) -> "dict[str, Command]":
    """Declare one pulumi-command resource per entry, in order; a new machine replaces all of them.

    pulumi-command runs the old `delete` after the new `create` unless it deletes before it replaces: the old one
    would undo what the new one did.
    """
    if not commands:
        return {}
    remote_command, _ = _remote()
    made: dict[str, Command] = {}
    for command in commands:
        made[command["name"]] = remote_command(
            f"{name}-command-{command['name']}",
            connection=connection(host),
            create=command["create"],
            delete=command.get("delete"),
            stdin=command.get("stdin"),
            triggers=[machine],
            add_previous_output_in_env=False,  # sshd takes no such variables, and each run would warn of it
            opts=pulumi.ResourceOptions(
                parent=server, depends_on=[ready, *made.values()], delete_before_replace=True
            ),
        )
    return made


def _remote() -> "tuple[type[Command], type[ConnectionArgs]]":
    with warnings.catch_warnings():
        # One class of that module is deprecated, and says so when the module is loaded: not our reader's affair.
        warnings.simplefilter("ignore", DeprecationWarning)
        from pulumi_command.remote import Command, ConnectionArgs  # noqa: PLC0415 (0.2 s most programs need not pay)
    return Command, ConnectionArgs
