"""A consumer's own commands, as pulumi-command would be asked to run them."""

import pulumi
import pytest
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict
from mocked_programs import block, declare, run
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.sync_await import _sync_await
from pulumi_vllm.provider.plugin import construct

SECRET = "4dabf18193072939515e22adb298388d"  # sdk/go/common/resource/properties.go: SigKey


def commands():
    return [
        {"name": "agent", "create": "sudo apt-get install -y agent", "delete": "sudo apt-get purge -y agent"},
        {"name": "token", "create": "cat > token", "stdin": pulumi.Output.secret("planted")},
    ]


def is_secret(value) -> bool:
    return isinstance(value, dict) and SECRET in value


@pytest.fixture
def requests():
    from pulumi_vllm import Server

    def program():
        server = Server("llm", {"server": block(), "commands": commands()})
        return {"names": list(server.commands)}

    monitor, outputs = run(program)
    assert outputs["names"] == ["agent", "token"]
    return monitor.requests


def test_the_host_key_is_given_and_the_private_key_stays_secret(requests):
    request = requests["llm-command-agent"]
    connection = MessageToDict(request.object)["connection"]
    assert is_secret(connection), "the whole connection"
    assert connection["value"]["hostKey"] == "ssh-ed25519 HOST"
    assert connection["value"]["host"] == "192.0.2.7"
    assert {"connection"} <= set(request.additionalSecretOutputs)


def test_a_new_machine_makes_a_command_anew_and_the_old_one_goes_first(requests):
    request = requests["llm-command-agent"]
    assert MessageToDict(request.object)["triggers"] == ["llm-machine-id"]
    assert request.deleteBeforeReplace
    assert request.deleteBeforeReplaceDefined


def test_commands_run_after_the_server_is_ready_and_one_after_the_other(requests):
    first, second = requests["llm-command-agent"], requests["llm-command-token"]
    assert any(urn.endswith("::llm-service") for urn in first.dependencies)
    assert not any("llm-command" in urn for urn in first.dependencies)
    assert any(urn.endswith("::llm-command-agent") for urn in second.dependencies)


def test_what_a_command_reads_stays_secret(requests):
    given = MessageToDict(requests["llm-command-token"].object)
    assert is_secret(given["stdin"])
    assert given["stdin"]["value"] == "planted"
    assert "delete" not in given


def test_a_connection_for_ones_own_commands_has_the_host_key():
    from pulumi_vllm import Server

    def program():
        connection = Server("llm", {"server": block()}).connection
        return {
            "host_key": connection.host_key,
            "user": connection.user,
            "secret": pulumi.Output.from_input(connection.private_key).is_secret(),
        }

    _, outputs = run(program)
    assert outputs == {"host_key": "ssh-ed25519 HOST", "user": "ubuntu", "secret": True}


def test_without_commands_pulumi_command_is_not_asked_for():
    made, _ = declare()
    assert not [one for one in made.values() if one["type"].startswith("command:")]


def test_errors_in_block_keys_and_commands_are_reported_together():
    commands = [
        {"name": "a", "creat": "true"},
        {"name": "A b", "create": "true"},
        {"name": "a", "create": "true"},
        "x",
    ]
    with pytest.raises(pulumi.RunError) as caught:
        declare(server={**block(), "contxt": 1}, commands=commands, hfToken="x")
    for sentence in (
        "server.contxt: unknown key; did you mean context?",
        "hfToken: unknown key; did you mean hf_token?",
        "commands[0].creat: unknown key; did you mean create?",
        "commands[0].create: missing; add it",
        "commands[1].name: 'A b' is not allowed",
        "commands[2].name: 'a' appears twice",
        "commands[3]: is not a block of keys",
    ):
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"create": "true"}, "commands[0].name: missing; add it"),
        ({"name": "", "create": "true"}, "commands[0].name: missing; add it"),
        ({"name": "a", "create": ""}, "commands[0].create: missing; add it"),
        ({"name": [], "create": "true"}, "commands[0].name: [] is not allowed"),
        ({"name": {"a": 1}, "create": "true"}, "commands[0].name: {'a': 1} is not allowed"),
        ({"name": "a", "create": 3}, "commands[0].create: is not text; write it as a string"),
        ({"name": "a", "create": ["true"]}, "commands[0].create: is not text"),
        ({"name": "a", "create": "true", "delete": False}, "commands[0].delete: is not text"),
        ({"name": "a", "create": "true", "stdin": {"planted": 1}}, "commands[0].stdin: is not text"),
    ],
)
def test_a_command_in_a_wrong_form_is_one_sentence(command, message):
    with pytest.raises(pulumi.RunError) as caught:
        declare(commands=[command])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "planted" not in str(caught.value)


def test_two_commands_without_names_lack_names_and_are_no_twins():
    with pytest.raises(pulumi.RunError) as caught:
        declare(commands=[{"create": "true"}, {"create": "true", "delete": None}])
    assert str(caught.value).splitlines() == [
        "commands[0].name: missing; add it",
        "commands[1].name: missing; add it",
    ]


def test_commands_may_be_known_later():
    from pulumi_vllm import Server

    def program():
        later = pulumi.Output.from_input("true")
        command = {"name": "a", "create": later, "delete": later, "stdin": pulumi.Output.secret("x")}
        return {"names": list(Server("llm", {"server": block(), "commands": [command]}).commands)}

    monitor, _ = run(program)
    assert MessageToDict(monitor.requests["llm-command-a"].object)["create"] == "true"


OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"  # sdk/go/common/resource/properties.go: OutputValueSig


def constructed(commands):
    """What the plugin registers for a program in another language, from the inputs as an engine sends them."""
    sent = struct_pb2.Struct()
    sent.update({"server": block(), "commands": commands})

    def program():
        inputs = _sync_await(ProviderServicer._construct_inputs(sent, {}))
        construct._component_provider().construct("llm", "vllm:index:Server", inputs)
        return {}

    return run(program)[0].requests


def test_a_program_in_another_language_has_commands_too():
    stdin = {SECRET: OUTPUT, "value": "planted", "secret": True}
    requests = constructed([{"name": "a", "create": "true"}, {"name": "b", "create": "cat", "stdin": stdin}])
    first, second = (MessageToDict(requests[f"llm-command-{name}"].object) for name in ("a", "b"))
    assert first["create"] == "true"
    assert "stdin" not in first
    assert is_secret(second["stdin"])
    assert any(urn.endswith("::llm-command-a") for urn in requests["llm-command-b"].dependencies)


def test_errors_in_commands_are_sentences_there_too():
    later = {SECRET: OUTPUT, "value": [], "secret": True}
    for commands, message in (
        ([{"name": "a", "create": 3}], r"commands\[0\].create: is not text"),
        (later, "commands: is an output"),
    ):
        with pytest.raises(pulumi.RunError, match=message):
            constructed(commands)
