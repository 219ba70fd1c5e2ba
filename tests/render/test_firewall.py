"""nftables rules from address ranges."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.render import firewall


def test_firewall_rules():
    found = firewall.rules(["9.9.9.0/24", "9.9.9.0/25", "2001:db8::/32"], ["0.0.0.0/0"])
    assert found == (
        "ip saddr { 9.9.9.0/24 } tcp dport 443 accept",
        "ip6 saddr { 2001:db8::/32 } tcp dport 443 accept",
        "meta nfproto ipv4 tcp dport 22 accept",
    )


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)), min_size=1, max_size=8))
def test_ranges_in_a_set_never_overlap(pairs):
    ranges = [str(ipaddress.ip_network((address, length), strict=False)) for address, length in pairs]
    (rule,) = firewall.rules(ranges, [])
    if "saddr" not in rule:  # the ranges together are everything
        return
    networks = [ipaddress.ip_network(one) for one in rule.split("{ ")[1].split(" }")[0].split(", ")]
    assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)


@pytest.mark.parametrize("ranges", [[], ["::/0"]])
def test_no_ipv4_range_means_no_ipv4_rule(ranges):
    assert not any("ipv4" in rule or "ip saddr" in rule for rule in firewall.rules(ranges, []))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.0.0.53", "0.0.0.0", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254"),
        *("100.100.100.200", "::1", "::", "fe80::a9fe:a9fe", "fd00:ec2::254", "::ffff:169.254.169.254"),
        *("255.255.255.255", "239.1.1.1", "64:ff9b::a9fe:a9fe", "ff02::1"),
    ],
)
def test_the_engine_reaches_no_address_that_is_not_public(address):
    found = ipaddress.ip_address(address)
    assert any(found in ipaddress.ip_network(one) for one in firewall.NOT_PUBLIC[found.version])


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "100.63.0.1", "172.32.0.1", "2606:4700::1111"])
def test_the_engine_reaches_public_addresses(address):
    found = ipaddress.ip_address(address)
    assert not any(found in ipaddress.ip_network(one) for one in firewall.NOT_PUBLIC[found.version])
