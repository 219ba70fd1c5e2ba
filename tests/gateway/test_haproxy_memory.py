"""What the probe of a host finds in HAProxy's memory, against the files that HAProxy has read."""

from __future__ import annotations

import hashlib
import types

import pytest
from pulumi_vllm.host.facts import Facts, MapChanges
from pulumi_vllm.host.probe_request import probe_source
from rendered_gateway import certificate

# One module, as on a host.
program = types.ModuleType("probe")
exec(probe_source(), program.__dict__)


@pytest.fixture
def gateway(gateways):
    return gateways()


def observed(gateway):
    """Facts about the gateway."""
    maps = [str(gateway.folder / "keys.map"), str(gateway.folder / "limits.map")]
    raw = program.gateway(str(gateway.socket), str(gateway.folder / "tls.pem"), maps)
    found = Facts.parse({"probe": 1, "gateway": raw}).gateway
    return found, {path.rpartition("/")[2]: changes for path, changes in found.maps.items()}


def test_memory_is_as_the_files(gateway, backend):
    found, maps = observed(gateway)
    assert found.certificate == found.certificate_file != ""
    assert [one.address for one in found.servers] == [f"127.0.0.1:{backend.port}"]
    assert {(changes.added, changes.missing) for changes in maps.values()} == {((), ())}


def test_keys_and_limits_that_were_changed_in_memory_are_found(gateway):
    keys, limits = (f"{gateway.folder}/{name}.map" for name in ("keys", "limits"))
    digest = hashlib.sha256(b"sk-planted").hexdigest()
    stolen = hashlib.sha256(b"sk-second-key-of-the-test").hexdigest()
    assert not gateway.command(f"add map {keys} {digest} mallory").strip()
    assert not gateway.command(f"del map {keys} {stolen}").strip()
    assert not gateway.command(f"set map {limits} team-a/requests 9").strip()
    found, maps = observed(gateway)
    assert maps["keys.map"] == MapChanges(("mallory",), ("team-b",))
    assert maps["limits.map"] == MapChanges(("team-a/requests 9",), ("team-a/requests 6000",))
    assert digest not in repr(found)
    gateway.reload()
    _, maps = observed(gateway)
    assert {(changes.added, changes.missing) for changes in maps.values()} == {((), ())}


def test_a_certificate_that_was_changed_in_memory_is_found(gateway, tmp_path):
    before, _ = observed(gateway)
    other = tmp_path / "other"
    other.mkdir()
    certificate(other)
    name = gateway.folder / "tls.pem"
    pem = (other / "tls.pem").read_text()
    gateway.command(f"set ssl cert {name} <<\n{pem.strip()}\n")
    assert "Success" in gateway.command(f"commit ssl cert {name}")
    found, _ = observed(gateway)
    assert found.certificate != found.certificate_file == before.certificate
    # A reload in vain: the master reads the file again.
    gateway.reload()
    found, _ = observed(gateway)
    assert found.certificate == before.certificate


def test_a_server_that_was_changed_in_memory_is_found(gateway):
    before, _ = observed(gateway)
    gateway.command(f"set server vllm/{before.servers[0].name} addr 127.0.0.2 port 9")
    found, _ = observed(gateway)
    assert [one.address for one in found.servers] == ["127.0.0.2:9"]
