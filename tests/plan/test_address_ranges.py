"""Who may reach a server: reserved ranges are refused, and a plan needs no range."""

from pathlib import Path

import pytest
import yaml
from pulumi_vllm.plan import ConfigError, Deployment, plan

STACKS = {
    path.stem.removeprefix("Pulumi."): yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
    for path in (Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml")
}
REFUSED = [
    ("203.0.113.0/24", "reserved for documentation"),
    ("203.0.113.7/32", "reserved for documentation"),
    ("198.51.100.0/25", "reserved for documentation"),
    ("192.0.2.0/24", "reserved for documentation"),
    ("2001:db8::/32", "reserved for documentation"),
    ("2001:db8:1::/48", "reserved for documentation"),
    ("3fff::/32", "reserved for documentation"),
    ("127.0.0.1/32", "loopback"),
    ("::1/128", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/64", "link-local"),
    ("224.0.0.0/8", "multicast"),
    ("ff02::/16", "multicast"),
    ("0.0.0.0/32", "unspecified"),
    ("::/128", "unspecified"),
    ("255.255.255.255/32", "reserved"),
    ("::ffff:9.9.9.9/128", "IPv4 inside IPv6"),
]
ADMITTED = ["0.0.0.0/0", "::/0", "9.9.9.0/24", "9.9.9.9", "10.0.0.0/8", "192.168.1.0/24", "100.64.0.0/10",
            "2620:fe::/48", "fd00::/8", "2001:d00::/24", "203.0.112.0/23", "128.0.0.0/1"]  # fmt: skip


def block(**access):
    return {**STACKS["spheron-h100-1x-nvfp4"], "access": access}


@pytest.mark.parametrize("key", ["allow", "ssh_allow"])
@pytest.mark.parametrize(("network", "purpose"), REFUSED)
def test_a_range_that_no_client_has_is_refused(key, network, purpose):
    with pytest.raises(ConfigError) as caught:
        Deployment.parse(block(**{"allow": ["9.9.9.0/24"], key: ["9.9.9.0/24", network]}))
    (message,) = caught.value.errors
    assert message.startswith(f"server.access.{key}.1: ")
    assert f" is {purpose} (" in message
    assert message.endswith("so no client connects from there; write an address range, as in YOUR.ADDRESS/32")


@pytest.mark.parametrize("network", ADMITTED)
def test_other_ranges_are_admitted(network):
    assert Deployment.parse(block(allow=[network], ssh_allow=[network])).access.allow


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_a_shipped_stack_is_planned_as_it_is(stack):
    assert plan(Deployment.parse(STACKS[stack]))


def test_only_the_stack_of_the_local_cloud_brings_its_ranges():
    assert [stack for stack, server in STACKS.items() if "allow" in server["access"]] == ["local"]


def test_a_block_without_access_is_planned():
    server = {key: value for key, value in block().items() if key != "access"}
    assert [key.name for key in Deployment.parse(server).access.keys] == ["default"]
