"""A Server on a machine that somebody else made: its resources, its arguments, and the stack's configuration."""

import pulumi
import pytest
from mocked_programs import declare, run
from pulumi_vllm import Server
from pulumi_vllm.component import stack_config
from pulumi_vllm.component.host_argument import Host, errors
from pulumi_vllm.component.server_args import validated_plan
from pulumi_vllm.plan import host_block
from pulumi_vllm.plan.config import Deployment

BLOCK = {
    "model": "mistral-small-4",
    "context": "32Ki",
    "machine": {"cloud": "none", "gpu": "H100", "count": 2, "usd_per_hour": 6.0},
    "storage": {"path": "/data/llm"},
    "access": {"allow": ["9.9.9.0/24"], "keys": ["team-a"]},
}
HOST = {"address": "203.0.113.7", "private_key": "PEM", "user": "ubuntu", "triggers": ["i-1"]}
RENTED = {
    "model": "mistral-small-4",
    "context": "32Ki",
    "machine": {"gpu": "H100", "count": 2, "max_usd_per_hour": 9},
    "storage": "300GB",
}


def found(host, block=None):
    return list(errors(host, Deployment.parse(block or BLOCK)))


def test_nothing_is_rented():
    made, outputs = declare(server=BLOCK, host=HOST)
    assert not [one for one in made.values() if one["type"].startswith("vllm:spheron")]
    machine = made["llm-machine"]
    assert machine["type"] == "vllm:host:Machine"
    assert machine["triggers"] == ["i-1"]
    assert (machine["storePath"], machine.get("storeDevice")) == ("/data/llm", None)
    files = made["llm-files"]
    assert files["connection"]["value"]["hostKey"] == "ssh-ed25519 HOST"
    assert files["access"]["sshAllow"] == ["0.0.0.0/0", "::/0"], "our rules leave SSH as it is"
    assert made["llm-service"]["endIfNeverReady"] is False
    assert "recovery" not in made["llm"]
    assert outputs["usd_per_hour"] == 6.0
    assert outputs["endpoint"] == "https://203.0.113.7/v1"
    assert outputs["plan"]["billing"] == "own machine"


def test_outputs_of_other_resources_are_accepted():
    def program():
        outputs = {
            "address": pulumi.Output.from_input("gpu.example.com"),
            "port": pulumi.Output.from_input(2222),
        }
        server = Server("llm", {"server": BLOCK, "host": HOST | outputs})
        return {"endpoint": server.endpoint}

    monitor, outputs = run(program)
    made = monitor.mocks.made
    assert made["llm-certificate"]["address"] == "gpu.example.com"
    assert made["llm-machine"]["port"] == 2222
    assert outputs["endpoint"] == "https://gpu.example.com/v1"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (None, "host: missing, and server.machine.cloud is none"),
        ("203.0.113.7", "host: is not a block of keys"),
        ({"address": "a"}, "host.private_key: missing; add it"),
        (HOST | {"adress": "a"}, "host.adress: unknown key; did you mean address?"),
        (
            HOST | {"address": "https://203.0.113.7/"},
            "host.address: 'https://203.0.113.7/' is not an address",
        ),
        (HOST | {"address": "-oProxyCommand=x"}, "host.address: '-oProxyCommand=x' is not an address"),
        (HOST | {"port": 0}, "host.port: 0 is not a port"),
        (HOST | {"port": "22"}, "host.port: '22' is not a port"),
        (HOST | {"user": 5}, "host.user: is not text"),
        (HOST | {"user": "a b;c"}, "host.user: 'a b;c' is not a login name; write up to 64 letters"),
        (HOST | {"user": "-o"}, "host.user: '-o' is not a login name"),
        (HOST | {"triggers": "i-1"}, "host.triggers: is not a list"),
    ],
)
def test_errors_name_the_key(host, message):
    (one,) = found(host)
    assert one.startswith(message)


def test_a_host_for_a_rented_machine_and_a_key_for_none():
    (one,) = found(HOST, RENTED)
    assert one.startswith("host: has no effect")
    with pytest.raises(pulumi.RunError) as caught:
        declare(server=BLOCK, host={"port": "x"}, ssh_private_key="PEM")
    assert str(caught.value).splitlines() == [
        "host.address: missing; add it",
        "host.private_key: missing; add it",
        "host.port: 'x' is not a port; write a number from 1 to 65535",
        "ssh_private_key: is the key of a rented machine; write host.private_key",
    ]


def read(monkeypatch, config):
    config = {"server": BLOCK} | config
    monkeypatch.setattr(pulumi.Config, "get_object", lambda _, key: config.get(key))
    monkeypatch.setattr(pulumi.Config, "get_secret", lambda _, key: config.get(key))
    monkeypatch.setattr(pulumi.Config, "get", lambda _, key: config.get(key))
    return stack_config.read_args()


def test_the_stack_file_names_it(monkeypatch, tmp_path):
    named = {"address": "203.0.113.7", "user": "ubuntu"}
    args = read(monkeypatch, {"host": named, "hostPrivateKey": "SECRET"})
    assert args["host"] == named | {"private_key": "SECRET"}
    file = tmp_path / "key"
    file.write_text("PEM")
    host = read(monkeypatch, {"host": named | {"private_key_file": str(file)}})["host"]
    assert host == named | {"private_key": "PEM"}
    assert not found(host)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            {"private_key_file": "MISSING"},
            "pulumi-vllm:host.private_key_file: MISSING can't be read (No such file",
        ),
        (
            {"private_key_file": "EMPTY"},
            "pulumi-vllm:host.private_key_file: EMPTY can't be read (it is empty)",
        ),
        ({}, "pulumi-vllm:host: has no private key; add private_key_file"),
        ({"private_key": "PEM"}, "pulumi-vllm:host.private_key: is in clear in the stack file"),
    ],
)
def test_a_wrong_key_of_the_stack_file_hides_no_other_error(monkeypatch, tmp_path, key, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").touch()
    args = read(monkeypatch, {"host": {"adress": "a", "port": 0, "user": "a b;c"} | key})
    with pytest.raises(pulumi.RunError) as caught:
        validated_plan(args | {"server": BLOCK | {"context": "many"}})
    of_server, of_key, *others = str(caught.value).splitlines()
    assert of_server.startswith("server.context: 'many'")
    assert of_key.startswith(problem)
    assert "PEM" not in str(caught.value)
    assert [one.partition(":")[2].partition(":")[0] for one in others] == [
        "host.adress", "host.address", "host.user", "host.port",
    ]  # fmt: skip


def test_both_places_of_a_host_know_the_same_keys():
    assert tuple(Host.__annotations__) == host_block.KEYS


@pytest.mark.parametrize("key", ["server", "host", "keys"])
@pytest.mark.parametrize("value", ["sk-of-somebody", '["sk-of-somebody"]', ""])
def test_text_in_place_of_a_block_is_an_error_that_does_not_show_it(key, value):
    pulumi.runtime.set_config("text-for-a-block:" + key, value)
    with pytest.raises(pulumi.RunError) as caught:
        stack_config.read_block(pulumi.Config("text-for-a-block"), key)
    assert str(caught.value).startswith(f"pulumi-vllm:{key}: is not a block of keys; ")
    assert "sk-of-somebody" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
