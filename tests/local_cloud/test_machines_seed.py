"""The first files of a guest, and records of processes; without root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pulumi_vllm_local import json_files
from pulumi_vllm_local.machines import processes, seed
from pulumi_vllm_local.machines.machine import MachineSpec

if TYPE_CHECKING:
    from pathlib import Path


def test_user_data_joins_lists_and_keeps_the_login() -> None:
    data = seed.user_data(
        "ubuntu", "ssh-ed25519 AAAA", {"users": ["default", {"name": "eve"}], "packages": ["jq"]}
    )
    assert [user["name"] for user in data["users"]] == ["ubuntu", "eve"]
    assert data["users"][0]["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert data["packages"] == ["jq"]
    assert "disable_root" not in data


def test_root_can_log_in_where_the_provider_allows_it() -> None:
    data = seed.user_data("root", "ssh-ed25519 AAAA", None)
    assert data["disable_root"] is False
    assert data["users"] == [{"name": "root", "ssh_authorized_keys": ["ssh-ed25519 AAAA"]}]


def test_resolvers_on_loopback_are_left_out() -> None:
    assert seed.nameservers("nameserver 127.0.0.53\nnameserver 192.0.2.53\noptions edns0\n") == (
        "192.0.2.53",
    )


def test_index_and_proxy_settings_are_copied_but_paths_are_not() -> None:
    host = {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_FIND_LINKS": "/opt/x",
        "https_proxy": "http://p:1",
    }
    found = seed.environment(host, "10.64.1.1")
    assert found["PIP_INDEX_URL"] == "https://index.example/simple"
    assert "PIP_FIND_LINKS" not in found
    assert found["no_proxy"].startswith("localhost,127.0.0.1,::1,10.64.1.1,10.64.1.0/24")
    assert found["SSL_CERT_FILE"] == seed.BUNDLE
    assert "no_proxy" not in seed.environment({}, "10.64.1.1")


def test_pip_settings_are_merged_and_the_later_file_wins(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(
        "[global]\nindex-url = https://one.example\ncert = /opt/ca.pem\ntimeout = 5\n"
    )
    (tmp_path / "two").write_text("[global]\nindex_url = https://two.example\n[list]\nformat = columns\n")
    text = seed.pip_configuration([tmp_path / "one", tmp_path / "two", tmp_path / "none"])
    assert "https://two.example" in text
    assert "timeout = 5" in text
    assert "cert" not in text
    assert "[list]" not in text


def test_the_network_is_a_file_that_every_release_reads() -> None:
    files = seed.network("10.64.1.10", "fd00::a", "10.64.1.1", ("192.0.2.53", "192.0.2.54"))
    (text,) = [text for path, text in files.items() if path.endswith(".network")]
    assert "Address=10.64.1.10/24\nAddress=fd00::a/64\nGateway=10.64.1.1\nDNS=192.0.2.53 192.0.2.54\n" in text
    assert "network: { config: disabled }\n" in files.values()


def test_a_machine_can_be_restored_from_its_record() -> None:
    spec = MachineSpec("d-1", "vm", ("engine-fake",), "ubuntu", "key", {"runcmd": ["true"]}, "H200", 2)
    assert MachineSpec.restored(spec.plain()) == spec
    assert spec.images() == ("gpu-h200-2x", "engine-fake", "base")


def test_a_reused_process_id_is_not_the_recorded_process(tmp_path: Path) -> None:
    record = {"pid": os.getpid(), "pid_start": processes.start_time(os.getpid())}
    assert processes.alive(record)
    assert not processes.alive(record | {"pid_start": 1})
    assert not processes.alive(None)
    json_files.write(tmp_path / "r.json", record)
    assert json_files.read(tmp_path / "r.json") == record
    (tmp_path / "r.json").write_text('{"half')
    assert json_files.read(tmp_path / "r.json") is None
