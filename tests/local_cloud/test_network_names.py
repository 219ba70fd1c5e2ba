"""Names, networks and firewall rules; without root."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from pulumi_vllm_local.machines.names import FIRST_GUEST, LAST_GUEST, Names, free_number, free_subnet
from pulumi_vllm_local.machines.network import firewall_rules, nat_table

if TYPE_CHECKING:
    from pathlib import Path


def test_two_state_folders_share_no_name(tmp_path: Path) -> None:
    one, two = Names.of(tmp_path / "a"), Names.of(tmp_path / "b")
    for names in (one, two):
        assert len(names.bridge) <= 15
        assert len(names.machine("dep-1")) <= 11
        assert names.link("dep-1") == f"vb-{names.machine('dep-1')}"
        assert len(names.link("dep-1")) <= 15
    assert {one.bridge, one.table, one.cgroup, one.prefix6()}.isdisjoint(
        {two.bridge, two.table, two.cgroup, two.prefix6()}
    )
    assert one.machine("dep-1") != two.machine("dep-1")
    assert one.machine("dep-1") != one.machine("dep-2")


def test_another_path_to_a_folder_gives_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Names.of(tmp_path / "real") == Names.of(tmp_path / "link")


def test_networks_are_private_and_distinct(tmp_path: Path) -> None:
    names = Names.of(tmp_path)
    subnets = names.subnets()
    assert len(set(subnets)) == 64
    assert all(subnet.subnet_of(ipaddress.IPv4Network("10.64.0.0/10")) for subnet in subnets)
    assert names.prefix6().subnet_of(ipaddress.IPv6Network("fd00::/8"))


def test_a_network_in_use_is_skipped(tmp_path: Path) -> None:
    first, second, *_ = Names.of(tmp_path).subnets()
    assert free_subnet((first, second), ("default", "192.0.2.0/24")) == first
    assert free_subnet((first, second), (str(first),)) == second
    assert free_subnet((first, second), (str(first[7]),)) == second
    assert free_subnet((first,), (str(first.supernet(new_prefix=16)),)) is None
    assert free_subnet((first,), ("10.0.0.0/8",)) == first, (
        "a company network with all of 10/8 must not prevent a local cloud"
    )


def test_addresses_are_used_round_robin() -> None:
    assert free_number(set(), LAST_GUEST) == FIRST_GUEST
    assert free_number({FIRST_GUEST + 1}, FIRST_GUEST) == FIRST_GUEST + 2
    assert free_number(set(range(FIRST_GUEST, LAST_GUEST + 1)), FIRST_GUEST) is None


def test_a_dropping_firewall_gets_two_accept_rules() -> None:
    docker = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n"
    assert firewall_rules("pvllm-1", docker, docker) == (
        ("DOCKER-USER", "-i", "pvllm-1", "-j", "ACCEPT"),
        ("DOCKER-USER", "-o", "pvllm-1", "-j", "ACCEPT"),
    )
    assert [rule[0] for rule in firewall_rules("pvllm-1", "-P FORWARD DROP\n", "")] == ["FORWARD", "FORWARD"]
    assert firewall_rules("pvllm-1", "-P FORWARD ACCEPT\n", docker) == ()


def test_the_table_replaces_itself() -> None:
    text = nat_table("pvllm_1", "pvllm-1", "10.64.1.0/24")
    assert text.index("delete table inet pvllm_1") < text.index("masquerade")
    assert "masquerade }" not in text
